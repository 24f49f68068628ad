"""Results of analyses in the store they were computed from: `analysis/NAME`, each with its parameters."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr
import zarr

from interp.base.errors import InputError, StoreError
from interp.base.plan import as_json
from interp.store.create import replacing, texts_as_objects, writing_lock, zarr_quiet
from interp.store.locations import remove

FOLDER = "analysis"


class Described(abc.ABC):
    """What runs and experiments have in common: a plan, a provenance, and results of analyses."""

    path: Path
    attributes: Mapping[str, Any]

    @property
    def plan(self) -> dict[str, Any]:
        """The plan: model, settings and prompts, and what a trace records."""
        return dict(self.attributes.get("plan", {}))

    @property
    def provenance(self) -> dict[str, Any]:
        """Model class, device, versions and time of the run."""
        return dict(self.attributes.get("provenance", {}))

    @property
    def results(self) -> list[str]:
        """Names of the analyses' results that the store holds."""
        return result_names(self.path)

    def result(self, name: str) -> xr.Dataset:
        """A result that a command such as `interp massive` wrote, loaded into memory."""
        return read_result(self.path, name)

    @abc.abstractmethod
    def facts(self) -> dict[str, str]:
        """The lines of the readable representation."""

    def __repr__(self) -> str:
        lines = [f"  {name:<13} {value}" for name, value in self.facts().items()]
        return "\n".join([f"<interp.{type(self).__name__} {self.path}>", *lines])


def write_result(path: Path, name: str, result: xr.Dataset) -> None:
    """Write a result into a store atomically; it replaces an earlier result of that name."""
    if not name.replace("-", "_").isidentifier():
        raise InputError(f"name must be a plain name such as massive; got {name!r}")
    target = path / FOLDER / name
    plain = result.assign_attrs(as_json(dict(result.attrs), "attributes"))
    with writing_lock(path), replacing(target, store=path, tag=name) as partial:
        texts_as_objects(plain.drop_encoding()).to_zarr(str(partial), mode="w", zarr_format=3, consolidated=False)
        if not (path / FOLDER / "zarr.json").exists():
            zarr.open_group(str(path), mode="r+").require_group(FOLDER)
        remove(target)


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
    return texts_as_objects(result)
