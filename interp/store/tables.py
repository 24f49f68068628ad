"""Results and stores as CSV, Parquet or NetCDF. Stores are exported one row at a time: they may be larger than memory."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from interp.base.errors import InputError
from interp.store.create import replacing, texts_as_objects

LINES = 2**19  # of a table that is written at once
FORMATS = {"csv": (), "parquet": ("pyarrow",), "nc": ("h5netcdf", "h5py")}


def table(data: xr.Dataset | xr.DataArray, first: Sequence[str] = ()) -> pd.DataFrame:
    """One line per cell and one column per variable, if one variable spans all axes; else one line per variable and cell:
    variable, axes, value. Lines are in the order of the axes, those of `first` before the others.
    """
    dataset = _dataset(data)
    cells = int(np.prod(list(dataset.sizes.values()), dtype=np.int64))
    if any(variable.size == cells for variable in dataset.data_vars.values()):
        return _frame(dataset, first)
    kept = [_long(str(name), variable, first) for name, variable in dataset.data_vars.items()]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()


def _frame(dataset: xr.Dataset, first: Sequence[str]) -> pd.DataFrame:
    axes = [str(axis) for axis in dataset.dims]
    leading = [axis for axis in first if axis in axes]
    frame = dataset.to_dataframe(dim_order=[*leading, *(axis for axis in axes if axis not in leading)]).reset_index()
    return frame[[*axes, *(column for column in frame if column not in axes)]]


def _long(name: str, variable: xr.DataArray, first: Sequence[str]) -> pd.DataFrame:
    if not variable.dims:
        return pd.DataFrame({"variable": [name], "value": [variable.item()]})
    frame = _frame(variable.rename("value").to_dataset(), first)
    return frame.assign(variable=name)[["variable", *(column for column in frame if column != "variable")]]


def missing(kind: str) -> str:
    """A message that names the packages a format needs; empty if they are installed."""
    if kind not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}; got {kind!r}")
    absent = [name for name in FORMATS[kind] if importlib.util.find_spec(name) is None]
    return f"{kind} needs {' and '.join(absent)}: pip install 'interp[export]'" if absent else ""


def encode(data: xr.Dataset | xr.DataArray, kind: str) -> bytes:
    """The bytes of a csv, parquet or nc file. NetCDF keeps axes, units and attributes; the other formats are tables."""
    absent = missing(kind)
    if absent:
        raise InputError(absent)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"data.{kind}"
        if kind == "nc":
            netcdf(_dataset(data)).to_netcdf(path, engine="h5netcdf")
        else:
            TABLES[kind]([table(data)], path)
        return path.read_bytes()


def _dataset(data: xr.Dataset | xr.DataArray) -> xr.Dataset:
    return data if isinstance(data, xr.Dataset) else data.to_dataset(name=str(data.name or "value"), promote_attrs=True)


def plain_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert columns that mix numbers and texts to texts: Parquet has one type per column."""
    mixed = [c for c in frame if frame[c].dtype == object and len({type(value) for value in frame[c].dropna()}) > 1]
    return frame.assign(**{str(column): frame[column].astype(str) for column in mixed})


def netcdf(dataset: xr.Dataset) -> xr.Dataset:
    """Convert values that NetCDF cannot hold: attributes other than numbers and texts become JSON, booleans 0 and 1."""
    plain = texts_as_objects(dataset.drop_encoding())
    plain = plain.assign({n: v.astype(np.int8) for n, v in plain.data_vars.items() if v.dtype == bool})
    for variable in plain.variables.values():
        variable.attrs = {str(name): _attribute(value) for name, value in variable.attrs.items()}
    return plain.assign_attrs({str(name): _attribute(value) for name, value in plain.attrs.items()})


def _attribute(value: Any) -> Any:
    if isinstance(value, str | float | np.number) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    return json.dumps(value, default=str)


def export(data: xr.Dataset, path: str | Path, on_row: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Write a Dataset as .csv, .parquet or .nc. A table has one line per cell, block by block. `path` does not exist until all
    of it is written. `on_row(done, total)` is called after every prompt.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise InputError(f"out must end in one of {', '.join(f'.{name}' for name in FORMATS)}; got {path.name!r}")
    if absent := missing(kind):
        raise InputError(absent)
    if not data.data_vars:
        raise InputError("data has no variable left to export; select at least one")
    with replacing(path) as partial:
        if kind == "nc":  # dask reads the store shard by shard
            netcdf(data).to_netcdf(partial, engine="h5netcdf")
            on_row(data.sizes.get("prompt", 1), data.sizes.get("prompt", 1))
        else:
            TABLES[kind](_parts(data, on_row), partial)
    return path


def _parts(data: xr.Dataset, on_row: Callable[[int, int], None]) -> Iterator[pd.DataFrame]:
    """Tables of one prompt and some blocks each; one prompt is in memory at a time."""
    if "prompt" not in data.dims:
        yield table(data.load())
        return
    total = data.sizes["prompt"]
    for row in range(total):
        here = data.isel(prompt=[row]).load()
        blocks = here.sizes.get("block", 1)
        size = max(variable.size for variable in here.data_vars.values())
        some = max(1, LINES * blocks // max(size, 1))
        for start in range(0, blocks, some):
            part = here.isel(block=slice(start, start + some)) if "block" in here.dims else here
            yield table(part, ("prompt", "block"))
        on_row(row + 1, total)


def _csv(parts: Iterable[pd.DataFrame], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, part in enumerate(parts):
            part.to_csv(file, index=False, header=number == 0)


def _parquet(parts: Iterable[pd.DataFrame], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: Any = None
    with contextlib.ExitStack() as stack:
        for part in parts:
            piece = pa.Table.from_pandas(plain_columns(part), preserve_index=False)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(path, piece.schema))
            writer.write_table(piece.cast(writer.schema))


TABLES = {"csv": _csv, "parquet": _parquet}
