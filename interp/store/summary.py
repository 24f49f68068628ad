"""Means and variances over prompts: small arrays that a dashboard's first page can read alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from interp.store.create import storage_errors
from interp.store.reader import Shelf, read_ahead
from interp.store.schema import Array

GROUPS = ("stats", "gates")
MOMENTS = ("mean", "variance")


class Moments:
    """Running mean and population variance of arrays, one at a time, in float64 (Welford, 1962).

    The order of the additions is the order of the calls, so the same rows give the same bits.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0
        self.mean = np.zeros(shape, np.float64)
        self.square = np.zeros(shape, np.float64)

    def add(self, value: Array) -> None:
        """Take one more array into account."""
        self.count += 1
        delta = value - self.mean
        self.mean += delta / self.count
        self.square += delta * (value - self.mean)

    def result(self) -> Array:
        """(moment, ...) float32: mean, variance."""
        if not self.count:
            return np.full((2, *self.mean.shape), np.nan, np.float32)
        return np.stack([self.mean, self.square / self.count]).astype(np.float32)


def summarise(shelf: Shelf) -> xr.Dataset:
    """Mean and variance over done rows, in row order, of every statistic and gate: (moment, step, block, stream, ...)."""
    found = []
    for group in (group for group in GROUPS if group in shelf):
        dataset = shelf.dataset(group)
        over_prompts = {
            str(name): moments_over_prompts(shelf, f"{group}/{name}", array)
            for name, array in dataset.items()
            if "prompt" in array.dims
        }
        flags = {f"{group}_{name}": array for name, array in dataset.items() if str(name).endswith("present")}
        found.append(xr.Dataset(over_prompts).assign(flags))
    summary = xr.merge(found, compat="equals", join="exact") if found else xr.Dataset()
    return summary.assign_attrs(rows=int(shelf.done.sum()))


def moments_over_prompts(shelf: Shelf, name: str, array: xr.DataArray) -> xr.DataArray:
    """Mean and variance over the prompt axis of one variable, reading one prompt at a time."""
    moments, stored = Moments(array.shape[1:]), shelf.stored(name)
    for values in read_ahead(np.flatnonzero(shelf.done).tolist(), stored.__getitem__):
        moments.add(values)
    kept = array.drop_vars([name for name, c in array.coords.items() if "prompt" in c.dims])
    dims = ("moment", *(dim for dim in array.dims if dim != "prompt"))
    return xr.DataArray(moments.result(), {"moment": np.array(MOMENTS, dtype=object), **dict(kept.coords.items())}, dims)


def write_summary(path: Path) -> None:
    """Compute the summary and put it into the store in one go, in place of an older one; nothing to do if it is up to date."""
    shelf = Shelf(path)
    if "summary" in shelf and shelf.dataset("summary").attrs.get("rows") == int(shelf.done.sum()):
        return
    summary = summarise(shelf)
    if not summary.data_vars or not summary.attrs["rows"]:
        return
    partial = path.with_name(f"{path.name}.partial-summary")
    with storage_errors(path), zarr.config.set({"array.write_empty_chunks": True}):
        shutil.rmtree(partial, ignore_errors=True)
        summary.to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
        shutil.rmtree(path / "summary", ignore_errors=True)
        os.rename(partial, path / "summary")
