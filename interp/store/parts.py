"""Measurements that are no pictures, kept row by row until all are there: a killed experiment goes on."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp.errors import InputError, StoreError
from interp.plan import check_same
from interp.store.create import storage_errors, zarr_quiet
from interp.store.results import write_dataset
from interp.store.schema import Array


class Parts:
    """Rows of arrays in a folder beside `path`, NAME-rows/; the finished result goes to `path` and the folder away.

    A folder or a result of another plan is refused.
    """

    def __init__(self, path: Path, plan: dict[str, Any]) -> None:
        if not path.name or path.name in (".", ".."):
            raise InputError(f"out must name the result's folder, such as cache/swap.zarr; got {str(path)!r}")
        self.path, self.plan = path, plan
        self.folder = path.with_name(f"{path.name.removesuffix('.zarr')}-rows")

    def finished(self) -> xr.Dataset | None:
        """The result, if it is there."""
        if not self.path.exists():
            return None
        try:
            with zarr_quiet():
                stored = xr.open_zarr(self.path, consolidated=False, chunks=None).load()
        except Exception as error:  # whatever zarr pleases, of what is no result
            raise StoreError(f"{self.path} exists and cannot be read ({type(error).__name__}); give another --out") from error
        check_same(self.plan, stored.attrs.get("plan", {}), str(self.path))
        texts = {n: (v.dims, np.asarray(v.to_numpy(), dtype=object)) for n, v in stored.coords.items() if v.dtype.kind in "TU"}
        named: xr.Dataset = stored.assign_coords(texts)
        return named

    def has(self, row: int) -> bool:
        """Whether a row is there."""
        self._open()
        return self._file(row).is_file()

    def write(self, row: int, arrays: dict[str, Array]) -> None:
        """Keep a row: nothing is there until it is whole."""
        partial = self._file(row).with_suffix(".partial.npz")
        with storage_errors(self.path):
            np.savez(partial, **arrays)  # type: ignore[arg-type]
            os.replace(partial, self._file(row))

    def read(self, row: int) -> dict[str, Array]:
        """A row that is there."""
        try:
            with np.load(self._file(row), allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except Exception as error:  # damaged bytes raise whatever they please
            raise StoreError(f"{self._file(row)} is damaged ({type(error).__name__}); delete it and run again") from error

    def finish(self, result: xr.Dataset) -> None:
        """Write the result and remove the rows."""
        write_dataset(self.path, result)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _open(self) -> None:
        plan = self.folder / "plan.json"
        if plan.is_file():
            check_same(self.plan, json.loads(plan.read_text(encoding="utf-8")), str(self.folder))
            return
        with storage_errors(self.path):
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = plan.with_suffix(".partial")
            partial.write_text(json.dumps(self.plan), encoding="utf-8")
            os.replace(partial, plan)

    def _file(self, row: int) -> Path:
        return self.folder / f"{row:05d}.npz"
