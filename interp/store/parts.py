"""Rows of an experiment that draws no pictures: kept in a folder until all are measured, then written as a store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp.base.errors import InputError, StoreError
from interp.base.plan import Row, as_json
from interp.base.same_plan import check_same
from interp.store.create import replacing
from interp.store.experiment import CellLayout, Experiment, experiment_lock, open_or_create
from interp.store.locations import is_remote
from interp.store.saved_results import write_result
from interp.store.schema import Array
from interp.store.writer import Writer


class Parts:
    """Rows of arrays in a folder next to `path`, NAME-rows/. The finished result is written to `path`; the folder is removed.

    A folder or result of another plan raises PlanError. `plan` is the model's plan with the parameters under the key `kind`.
    """

    def __init__(self, path: Path, plan: dict[str, Any], kind: str) -> None:
        if not path.name or path.name in (".", ".."):
            raise InputError(f"out must name the result's folder, such as cache/swap.zarr; got {str(path)!r}")
        if is_remote(path):
            raise InputError(f"out must be a folder for {kind}; got {path}")
        self.path, self.plan, self.kind = path, plan, kind
        self.folder = path.with_name(f"{path.name.removesuffix('.zarr')}-rows")

    def finished(self) -> xr.Dataset | None:
        """The result; `None` if it does not exist yet."""
        if not self.path.exists():
            return None
        stored = Experiment(self.path)
        check_same(self.plan, {**stored.plan, self.kind: stored.parameters}, str(self.path))
        return stored.result(self.kind)

    def has(self, row: int) -> bool:
        """Whether a row is stored. The folder keeps the plan, which every call checks."""
        plan = self.folder / "plan.json"
        if plan.is_file():
            check_same(self.plan, json.loads(plan.read_text(encoding="utf-8")), str(self.folder))
        else:
            with replacing(plan, store=self.path) as partial:
                self.folder.mkdir(parents=True, exist_ok=True)
                partial.write_text(json.dumps(self.plan), encoding="utf-8")
        return self._file(row).is_file()

    def write(self, row: int, arrays: dict[str, Array]) -> None:
        """Store a row atomically."""
        with replacing(self._file(row), store=self.path, tag=f"{row:05d}") as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def read(self, row: int) -> dict[str, Array]:
        """Read a stored row."""
        try:
            with np.load(self._file(row), allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except Exception as error:  # damaged bytes raise errors of any type
            raise StoreError(f"{self._file(row)} is damaged ({type(error).__name__}); delete it and run again") from error

    def finish(self, result: xr.Dataset, rows: Sequence[Row], provenance: dict[str, Any]) -> None:
        """Create the store with the result in it, and remove the rows' files."""
        texts, seeds = tuple(row.text for row in rows), tuple(row.seed for row in rows)
        layout = CellLayout(texts, seeds, (self.kind,), {}, np.ones((len(rows), 1), bool), None, {}, ())
        plan = {name: value for name, value in self.plan.items() if name != self.kind}
        asked = {"experiment": self.kind, "parameters": self.plan[self.kind], "arms": []}
        with experiment_lock(self.path):
            open_or_create(self.path, layout, as_json({**asked, "plan": plan, "provenance": provenance}, "attributes"))
            with Writer(self.path) as writer:
                for row in range(len(rows)):
                    writer.row((row, 0), {})
        write_result(self.path, self.kind, result)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, row: int) -> Path:
        return self.folder / f"{row:05d}.npz"
