"""Estimate the size of a store and the time to trace it, from one measured row: compression ratios vary by model."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from interp.base.errors import TraceError
from interp.runs.batches import Batches
from interp.runs.recorded import make_schema
from interp.store.create import create, zarr_quiet
from interp.store.moments import Bundle
from interp.store.schema import FOLDED, HiddenAxes, Schema, Variable
from interp.store.writer import Writer
from interp.tracing.prepare import Prepared

SHARE = {
    "float32": 0.93,
    "bfloat16": 0.40,
    "float16": 0.47,
}  # disk bytes / memory bytes without a probe (docs/store.md)
SLICES = 32  # hidden states that the probe writes: steps x blocks may be many gigabytes


@dataclasses.dataclass(frozen=True)
class Size:
    """One variable of a store."""

    variable: str
    sizes: dict[str, int]
    bytes: int
    """In memory."""
    disk_bytes: int
    """On disk, estimated."""


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Estimated size and duration of a run."""

    variables: list[Size]
    rows: int
    seconds_a_row: float | None
    """On this device; `None` if nothing was measured."""

    @property
    def bytes(self) -> int:
        """In memory."""
        return sum(size.bytes for size in self.variables)

    @property
    def disk_bytes(self) -> int:
        """On disk."""
        return sum(size.disk_bytes for size in self.variables)


def forecast(prepared: Prepared, *, probe: bool = True) -> Forecast:
    """Estimate the sizes of a run's store. With `probe` its first row (two for bundles) is traced into a temporary folder and
    measured; without, compression ratios of other models are used.
    """
    schema = make_schema(prepared)
    if not probe:
        return Forecast([_assumed(prepared.plan.dtype, *item) for item in _all(schema).items()], len(schema.prompt_text), None)
    with tempfile.TemporaryDirectory(prefix="interp-probe-") as folder:
        path = Path(folder) / "probe.zarr"
        seconds, shares = _probe(prepared, path)
        measured = {name: _bytes(path / name / "c") / shares.get(name, 1.0) for name in _names(schema)}
        fixed = _bytes(path) - sum(_bytes(path / name / "c") for name in _names(schema))
    rows = len(schema.prompt_text)
    probed = len(_few(prepared).plan.rows())
    times = {"bundle": -(-rows // (schema.bundle or 1)), "prompt": rows / probed}
    found = []
    for name, variable in _all(schema).items():
        if name.startswith("summary/"):  # two moments, each like the values of one row
            disk = measured[name.removeprefix("summary/")] * (1 if schema.bundle else 2 / probed)
        else:
            disk = measured[name] * times[next(iter(variable.sizes))]
        found.append(Size(name, variable.sizes, variable.bytes, round(disk)))
    found.append(Size("attributes and coordinates", {}, round(fixed), round(fixed)))
    return Forecast(found, rows, seconds)


def _few(prepared: Prepared) -> Prepared:
    """The run with its first row only; two rows for bundles."""
    plan = prepared.plan
    texts = [row.text for row in plan.rows()][: 2 if plan.record.bundle else 1]
    return dataclasses.replace(prepared, plan=dataclasses.replace(plan, prompts=tuple(texts), repeats=1))


def _probe(prepared: Prepared, path: Path) -> tuple[float, dict[str, float]]:
    """Trace the first row into a store; return the seconds and the share of each stream's hidden states that was written."""
    few = _few(prepared)
    schema = make_schema(few)
    create(path, schema, {"plan": few.plan.to_json(), "provenance": {}})
    sparse = Sparse(path, schema.hidden)
    with zarr_quiet(), sparse as writer:
        batches, bundle = Batches(few, schema, writer, lambda step: None), Bundle()
        started = time.monotonic()
        found = [result for row in few.plan.rows() for result in batches.trace([row], [row.index])]
        seconds = (time.monotonic() - started) / len(found)
        for result in found:
            if result.failure is not None:
                raise TraceError(f"the probe of --dry-run failed: {result.failure} (--no-probe skips it)")
            writer.row(result.row.index, bundle.add(result.arrays) if schema.bundle else result.arrays)
        if schema.bundle:
            writer.bundle(0, [row.index for row in few.plan.rows()], bundle.moments())
    return seconds, sparse.shares


class Sparse(Writer):
    """Writes some of the hidden states, evenly spread over steps and blocks."""

    def __init__(self, path: Path, hidden: Any) -> None:
        super().__init__(path)
        self._kept: dict[str, set[tuple[int, int]]] = {name: _spread(axes) for name, axes in hidden.items()}
        self.shares = {
            f"hidden/{name}/hidden": len(self._kept[name]) / (len(axes.steps) * len(axes.blocks))
            for name, axes in hidden.items()
        }

    def hidden(self, row: int, step: int, block: int, stream: str, state: Any) -> None:
        """Queue one hidden state if it is in the measured subset."""
        if (step, block) in self._kept[stream]:
            super().hidden(row, step, block, stream, state)


def _spread(axes: HiddenAxes) -> set[tuple[int, int]]:
    places = [(step, block) for step in range(len(axes.steps)) for block in range(len(axes.blocks))]
    chosen = np.unique(np.linspace(0, len(places) - 1, min(SLICES, len(places))).round().astype(int))
    return {places[number] for number in chosen}


def _all(schema: Schema) -> dict[str, Variable]:
    """Every large variable by its path in the store, including the summary."""
    found = {f"{name}/hidden" if name.startswith("hidden/") else name: v for name, v in schema.variables().items()}
    for name, variable in dataclasses.replace(schema, bundle=0).variables().items():
        if name.split("/")[0] in FOLDED:
            source = f"bundles/{name}" if schema.bundle else name
            sizes = {"moment": 2, **{axis: size for axis, size in variable.sizes.items() if axis != "prompt"}}
            found[f"summary/{source}"] = Variable(sizes, sizes, None)
    return found


def _names(schema: Schema) -> list[str]:
    return [name for name in _all(schema) if not name.startswith("summary/")]


def _assumed(dtype: str, name: str, variable: Variable) -> Size:
    copied = name.startswith(("hidden", "gates"))  # values of the model's dtype: bfloat16 leaves zero bits to compress
    share = SHARE[dtype] if copied else SHARE["float32"]
    return Size(name, variable.sizes, variable.bytes, round(variable.bytes * share))


def _bytes(folder: Path) -> float:
    return float(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))
