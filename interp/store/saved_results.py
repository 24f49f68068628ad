"""Results of analyses in the store they were computed from: `analysis/NAME`, each with its parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from interp.base.errors import InputError, StoreError
from interp.base.plan import as_json
from interp.store.create import storage_errors, writing_lock, zarr_quiet
from interp.store.locations import move, remove

FOLDER = "analysis"


def write_result(path: Path, name: str, result: xr.Dataset) -> None:
    """Write a result into a store atomically; it replaces an earlier result of that name."""
    if not name.replace("-", "_").isidentifier():
        raise InputError(f"name must be a plain name such as massive; got {name!r}")
    partial = path.with_name(f"{path.name}.partial-{name}")
    target = path / FOLDER / name
    plain = result.assign_attrs(as_json(dict(result.attrs), "attributes"))
    with writing_lock(path), storage_errors(path), zarr_quiet(), zarr.config.set({"array.write_empty_chunks": True}):
        remove(partial)
        try:
            _storable(plain).to_zarr(str(partial), mode="w", zarr_format=3, consolidated=False)
            if not (path / FOLDER / "zarr.json").exists():
                zarr.open_group(str(path), mode="r+").require_group(FOLDER)
            remove(target)
            move(partial, target)
        finally:
            remove(partial)


def _storable(result: xr.Dataset) -> xr.Dataset:
    """Convert texts to object arrays and drop encodings of the source."""
    plain = result.drop_encoding()
    texts = [name for name, variable in plain.variables.items() if variable.dtype.kind in "US"]
    coordinates = {name: (plain[name].dims, plain[name].to_numpy().astype(object)) for name in texts if name in plain.coords}
    variables = {name: (plain[name].dims, plain[name].to_numpy().astype(object)) for name in texts if name not in plain.coords}
    return plain.assign_coords(coordinates).assign(variables)


def result_names(path: Path) -> list[str]:
    """Names of the results that a store holds."""
    folder = path / FOLDER
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


def read_result(path: Path, name: str) -> xr.Dataset:
    """Read a result into memory."""
    if name not in result_names(path):
        held = ", ".join(result_names(path)) or "none yet"
        raise InputError(f"store {path} holds no result {name!r}; it holds: {held}")
    return _read(path / FOLDER / name, f"store {path}: result {name}")


def read_dataset(path: Path) -> xr.Dataset:
    """Read a result in its own zarr folder, as earlier versions of some experiments wrote it."""
    return _read(path, str(path))


def _read(path: Path, said: str) -> xr.Dataset:
    try:
        with zarr_quiet():
            result = xr.open_zarr(str(path), consolidated=False, chunks=None).load()
    except Exception as error:  # codecs raise errors of any type on damaged bytes
        raise StoreError(f"{said} cannot be read ({type(error).__name__}: {error}); make it again") from error
    texts = {n: (v.dims, np.asarray(v.to_numpy(), dtype=object)) for n, v in result.variables.items() if v.dtype.kind in "TU"}
    named: xr.Dataset = result.assign({n: v for n, v in texts.items() if n in result.data_vars})
    return named.assign_coords({n: v for n, v in texts.items() if n in result.coords})
