"""Means and variances over prompts: the summary of a run, and bundles of a few prompts each.

    summary/STREAM/NAME                                       (moment, step, block, ..., channel) float32
    bundles/stats/STREAM/NAME, bundles/gates/STREAM/NAME      (bundle, moment, step, block, ..., channel) float32

A run in one process adds up its rows while it writes them (`Totals`); otherwise the summary is read from the store. Both give
the same bits. Runs too large to keep the statistics of every prompt keep bundles. A bundle covers the done rows among
`bundle * size .. (bundle + 1) * size - 1`. Bundles are written whole, so workers, shards and resumed runs do not update stored
moments. The summary, small enough for a dashboard's first page, is the combination of all bundles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from interp.store.create import replacing, write_dataset
from interp.store.locations import remove
from interp.store.reader import StoreReader, read_ahead, side_by_side
from interp.store.schema import FOLDED, Array, Groups, Schema

MOMENTS = ("mean", "variance")
MOST_TOTALS = 2 * 2**30  # bytes of running moments, float64
PART = 2**15  # elements per pass: they fit in the processor's cache


class Moments:
    """Running mean and population variance of arrays, one at a time, in float64 (Welford, 1962).

    The order of the additions is the order of the calls, so the same rows give the same bits.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0
        self.mean = np.zeros(shape, np.float64)
        self.square = np.zeros(shape, np.float64)

    def add(self, value: Array) -> None:
        """Add one array."""
        self.count += 1
        flat, means, squares = np.reshape(value, -1), self.mean.reshape(-1), self.square.reshape(-1)
        for start in range(0, means.size, PART):
            part = slice(start, start + PART)
            given, mean, square = flat[part], means[part], squares[part]
            delta = given - mean
            mean += delta / self.count
            square += delta * (given - mean)

    def join(self, mean: Array, variance: Array, count: int) -> None:
        """Add the mean and population variance of `count` arrays (Chan, Golub, LeVeque, 1979)."""
        if not count:
            return
        total = self.count + count
        delta = mean - self.mean
        self.square += count * np.asarray(variance, np.float64) + delta**2 * (self.count * count / total)
        self.mean += delta * (count / total)
        self.count = total

    def result(self) -> Array:
        """(moment, ...) float32: mean, variance."""
        if not self.count:
            return np.full((2, *self.mean.shape), np.nan, np.float32)
        return np.array([self.mean, self.square / self.count], np.float32)


class Bundle:
    """Running moments of one bundle."""

    def __init__(self) -> None:
        self._moments: dict[str, dict[str, Moments]] = {}

    def add(self, arrays: Groups) -> Groups:
        """Add a row's statistics and gates; return the arrays that are still to be written for the row itself."""
        folded = {group for group in arrays if group.split("/")[0] in FOLDED}
        for group in folded:
            for name, array in arrays[group].items():
                self._moments.setdefault(group, {}).setdefault(name, Moments(np.shape(array))).add(array)
        return {group: variables for group, variables in arrays.items() if group not in folded}

    def moments(self) -> Groups:
        """(moment, ...) of every statistic and gate: mean and population variance over the bundle's rows."""
        return {group: {name: own.result() for name, own in moments.items()} for group, moments in self._moments.items()}


class Totals:
    """Running moments of a run's rows, added in row order as they are written."""

    def __init__(self, schema: Schema) -> None:
        self.schema, self.rows = schema, list[int]()
        self.variables = {name: own for name, own in schema.variables().items() if name.split("/")[0] in FOLDED}
        self._moments: dict[str, Moments] = {}

    @classmethod
    def of(cls, schema: Schema) -> Totals | None:
        """Those of a new store; `None` where they would take too much memory, or bundles keep them."""
        if schema.bundle:
            return None
        size = sum(
            4 * own.bytes // len(schema.prompt_text) for n, own in schema.variables().items() if n.split("/")[0] in FOLDED
        )
        return cls(schema) if size <= MOST_TOTALS else None

    def add(self, row: int, arrays: Groups) -> None:
        """Add a row."""
        self.rows.append(row)
        for name, variable in self.variables.items():
            if name not in self._moments:
                self._moments[name] = Moments(tuple(variable.sizes.values())[1:])
            group, _, own = name.rpartition("/")
            self._moments[name].add(arrays[group][own])

    def summaries(self) -> dict[str, xr.Dataset]:
        """As `summarise` reads them from the store."""
        return {name: self._summary(name) for name in self.schema.streams}

    def _summary(self, stream: str) -> xr.Dataset:
        found = []
        for group in FOLDED:
            own = [name for name in self.variables if name.startswith(f"{group}/{stream}/")]
            if own:
                around = self.schema.coordinates(own[0]).drop_vars("prompt")
                flags = {f"{group}_{name}": flag for name, flag in around.items()}
                data = {name.split("/")[2]: self._moments[name].result() for name in own}
                dims = {name.split("/")[2]: ("moment", *tuple(self.variables[name].sizes)[1:]) for name in own}
                coords = {"moment": np.array(MOMENTS, dtype=object), **around.coords}
                found.append(xr.Dataset({name: (dims[name], values) for name, values in data.items()}, coords).assign(flags))
        return _merged(found, len(self.rows))


def summarise(reader: StoreReader) -> dict[str, xr.Dataset]:
    """Mean and variance over done rows, in row order, of every statistic and gate: (moment, step, block, ...), by stream. Of a
    store of schema 1: of all streams, with a stream axis, by "".
    """
    return {name: _summary_of(reader, name) for name in ([""] if reader.joint else [one.name for one in reader.streams])}


def joined_summary(parts: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """The summaries of all streams, with a stream axis."""
    if "" in parts:
        return parts[""]
    first = next(iter(parts.values()))
    return side_by_side(parts).assign_attrs(first.attrs) if first.data_vars else first


def _merged(groups: Sequence[xr.Dataset], rows: int) -> xr.Dataset:
    summary = xr.merge(groups, compat="equals", join="exact") if groups else xr.Dataset()
    return summary.assign_attrs(rows=rows)


def _summary_of(reader: StoreReader, stream: str) -> xr.Dataset:
    found = []
    for group in FOLDED:
        stored = "/".join(part for part in ("bundles" if "bundles" in reader else "", group, stream) if part)
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
    return _merged(found, int(reader.done.sum()))


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


def write_summary(path: Path, totals: Totals | None = None) -> None:
    """Write the summary into the store, from totals of all its rows if there are any; an up-to-date one is kept."""
    reader = StoreReader(path)
    if reader.summary_rows == int(reader.done.sum()):
        return
    rows = np.flatnonzero(reader.done).tolist()
    added = totals is not None and not reader.joint and totals.rows == rows != []
    parts = totals.summaries() if totals is not None and added else summarise(reader)
    if not rows or not any(part.data_vars for part in parts.values()):
        return
    with replacing(path / "summary", store=path, tag="summary") as partial:
        zarr.open_group(str(partial), mode="w", attributes={"rows": len(rows)})
        for name, part in parts.items():
            write_dataset(part, str(partial), name or None)
        remove(path / "summary")
