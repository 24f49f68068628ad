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
    bundled = "bundles" in reader
    for group in FOLDED:
        stored = f"bundles/{group}" if bundled else group
        if stored not in reader:
            continue
        dataset = reader.dataset(stored)
        over_prompts = {
            str(name): (moments_over_bundles if bundled else moments_over_prompts)(reader, f"{stored}/{name}", array)
            for name, array in dataset.items()
            if array.dims[0] in ("prompt", "bundle")
        }
        flags = {f"{group}_{name}": array for name, array in dataset.items() if str(name).endswith("present")}
        found.append(xr.Dataset(over_prompts).assign(flags))
    summary = xr.merge(found, compat="equals", join="exact") if found else xr.Dataset()
    return summary.assign_attrs(rows=int(reader.done.sum()))


def moments_over_prompts(reader: StoreReader, name: str, array: xr.DataArray) -> xr.DataArray:
    """Mean and variance over the prompt axis of one variable; reads one prompt at a time."""
    moments, stored = Moments(array.shape[1:]), reader.stored(name)
    for values in read_ahead(np.flatnonzero(reader.done).tolist(), stored.__getitem__):
        moments.add(values)
    return _over(moments, array)


def moments_over_bundles(reader: StoreReader, name: str, array: xr.DataArray) -> xr.DataArray:
    """The same for a store of bundles: their moments, combined."""
    moments, stored = Moments(array.shape[2:]), reader.stored(name)
    size = int(reader.attributes["plan"]["record"]["bundle"])
    counts = [int(reader.done[start : start + size].sum()) for start in range(0, reader.done.size, size)]
    bundles = [number for number, count in enumerate(counts) if count]
    for number, (mean, variance) in zip(bundles, read_ahead(bundles, stored.__getitem__), strict=True):
        moments.join(mean, variance, counts[number])
    return _over(moments, array)


def _over(moments: Moments, array: xr.DataArray) -> xr.DataArray:
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
