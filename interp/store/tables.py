"""Results as CSV, Parquet or NetCDF files."""

from __future__ import annotations

import importlib.util
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from interp.base.errors import InputError
from interp.store.create import texts_as_objects

FORMATS = {"csv": (), "parquet": ("pyarrow",), "nc": ("h5netcdf", "h5py")}


def table(data: xr.Dataset | xr.DataArray) -> pd.DataFrame:
    """One line per cell and one column per variable, if one variable spans all axes; else one line per variable and cell:
    variable, axes, value.
    """
    dataset = _dataset(data)
    cells = int(np.prod(list(dataset.sizes.values()), dtype=np.int64))
    if any(variable.size == cells for variable in dataset.data_vars.values()):
        return dataset.to_dataframe().reset_index()
    kept = [_long(str(name), variable) for name, variable in dataset.data_vars.items()]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()


def _long(name: str, variable: xr.DataArray) -> pd.DataFrame:
    if not variable.dims:
        return pd.DataFrame({"variable": [name], "value": [variable.item()]})
    frame = variable.rename("value").to_dataframe().reset_index()
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
    if kind == "csv":
        return str(table(data).to_csv(index=False)).encode()
    if kind == "parquet":
        file = io.BytesIO()
        plain_columns(table(data)).to_parquet(file, index=False)
        return file.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.nc"
        netcdf(_dataset(data)).to_netcdf(path, engine="h5netcdf")
        return path.read_bytes()


def _dataset(data: xr.Dataset | xr.DataArray) -> xr.Dataset:
    if isinstance(data, xr.Dataset):
        return data
    named: xr.Dataset = data.to_dataset(name=str(data.name or "value"))
    return named.assign_attrs(data.attrs)


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
