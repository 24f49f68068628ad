"""Export stores to CSV, Parquet and NetCDF, one row at a time: a store may be larger than memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from interp.base.errors import InputError
from interp.store.create import replacing
from interp.store.tables import FORMATS, missing, netcdf, plain_columns, table


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
        {"csv": _csv, "parquet": _parquet, "nc": _nc}[kind](data, partial, on_row)
    return path


def _parts(data: xr.Dataset, on_row: Callable[[int, int], None]) -> Iterator[pd.DataFrame]:
    """Tables of one prompt and one block each; one prompt is in memory at a time."""
    if "prompt" not in data.dims:
        yield table(data.load())
        return
    total = data.sizes["prompt"]
    for row in range(total):
        here = data.isel(prompt=[row]).load()
        blocks = range(here.sizes["block"]) if "block" in here.dims else [None]
        for block in blocks:
            yield table(here if block is None else here.isel(block=[block]))
        on_row(row + 1, total)


def _csv(data: xr.Dataset, path: Path, on_row: Callable[[int, int], None]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, part in enumerate(_parts(data, on_row)):
            part.to_csv(file, index=False, header=number == 0)


def _parquet(data: xr.Dataset, path: Path, on_row: Callable[[int, int], None]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: Any = None
    with contextlib.ExitStack() as stack:
        for part in _parts(data, on_row):
            piece = pa.Table.from_pandas(plain_columns(part), preserve_index=False)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(path, piece.schema))
            writer.write_table(piece.cast(writer.schema))


def _nc(data: xr.Dataset, path: Path, on_row: Callable[[int, int], None]) -> None:
    """Write NetCDF; dask reads the store shard by shard."""
    netcdf(data).to_netcdf(path, engine="h5netcdf")
    on_row(data.sizes.get("prompt", 1), data.sizes.get("prompt", 1))
