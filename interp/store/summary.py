"""Means and variances over prompts: small arrays, enough for a dashboard's first page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from interp.store.create import replacing, write_dataset
from interp.store.locations import remove
from interp.store.moments import MOMENTS, Moments
from interp.store.reader import StoreReader, read_ahead
from interp.store.schema import FOLDED


def summarise(reader: StoreReader) -> xr.Dataset:
    """Mean and variance over done rows, in row order, of every statistic and gate: (moment, step, block, stream, ...)."""
    found = []
    for group in FOLDED:
        stored = f"bundles/{group}" if "bundles" in reader else group
        if stored not in reader:
            continue
        dataset = reader.dataset(stored)
        over_prompts = {
            str(name): moments_of(reader, f"{stored}/{name}", array)
            for name, array in dataset.items()
            if array.dims[0] in ("prompt", "bundle")
        }
        flags = {f"{group}_{name}": array for name, array in dataset.items() if str(name).endswith("present")}
        found.append(xr.Dataset(over_prompts).assign(flags))
    summary = xr.merge(found, compat="equals", join="exact") if found else xr.Dataset()
    return summary.assign_attrs(rows=int(reader.done.sum()))


def moments_of(reader: StoreReader, name: str, array: xr.DataArray) -> xr.DataArray:
    """Mean and variance over the prompts of one variable, combined from the moments of bundles where the store has these. One
    prompt or bundle is in memory at a time.
    """
    bundled = array.dims[0] == "bundle"
    size = int(reader.attributes["plan"]["record"]["bundle"]) if bundled else 1
    counts = [int(reader.done[start : start + size].sum()) for start in range(0, reader.done.size, size)]
    numbers = [number for number, count in enumerate(counts) if count]
    moments = Moments(array.shape[2:] if bundled else array.shape[1:])
    for number, values in zip(numbers, read_ahead(numbers, reader.stored(name).__getitem__), strict=True):
        if bundled:
            moments.join(values[0], values[1], counts[number])
        else:
            moments.add(values)
    gone = {"prompt", "bundle", "moment"}
    kept = {name: c for name, c in array.coords.items() if not gone & {*c.dims, name}}
    dims = ("moment", *(dim for dim in array.dims if dim not in gone))
    return xr.DataArray(moments.result(), {"moment": np.array(MOMENTS, dtype=object), **kept}, dims)


def write_summary(path: Path) -> None:
    """Compute the summary and write it into the store; an up-to-date summary is kept, an older one replaced."""
    reader = StoreReader(path)
    if "summary" in reader and reader.dataset("summary").attrs.get("rows") == int(reader.done.sum()):
        return
    summary = summarise(reader)
    if not summary.data_vars or not summary.attrs["rows"]:
        return
    with replacing(path / "summary", store=path, tag="summary") as partial:
        write_dataset(summary, str(partial))
        remove(path / "summary")
