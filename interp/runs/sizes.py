"""Estimate the size of a store and the time to trace it, from one measured row: compression ratios vary by model."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from interp.base.errors import TraceError
from interp.runs.batches import Tracing
from interp.runs.recorded import make_schema
from interp.store.create import create, zarr_quiet
from interp.store.schema import FOLDED, Array, Schema
from interp.store.summary import Bundle
from interp.store.variable import Variable
from interp.store.writer import Writer
from interp.tracing.prepare import Prepared

SHARE = {"float32": 0.93, "bfloat16": 0.40, "float16": 0.47}  # disk bytes / memory bytes without a probe (docs/store.md)
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
    every, rows = _all(schema), len(schema.prompt_text)
    if not probe:
        return Forecast([_assumed(prepared.plan.dtype, *item) for item in every.items()], rows, None)
    with tempfile.TemporaryDirectory(prefix="interp-probe-") as folder:
        path = Path(folder) / "probe.zarr"
        seconds, shares = _probe(prepared, path)
        measured = {name: _bytes(path / name / "c") for name in every}
        fixed = _bytes(path) - sum(measured.values())
    probed = len(_few(prepared).plan.rows())
    times = {"bundle": -(-rows // (schema.bundle or 1)), "prompt": rows / probed}
    found = []
    for name, variable in every.items():
        if name.startswith("summary/"):  # two moments, each like the values of one row
            disk = measured[name.removeprefix("summary/")] * (1 if schema.bundle else 2 / probed)
        else:
            disk = measured[name] / shares.get(name, 1.0) * times[next(iter(variable.sizes))]
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
    few, bundle = _few(prepared), Bundle()
    tracing = Tracing(few, path)
    schema = tracing.schema
    create(path, schema, {"plan": few.plan.to_json(), "provenance": {}})
    with zarr_quiet(), Sparse(path, schema.hidden) as writer:
        started = time.monotonic()
        found = [result for row in few.plan.rows() for result in tracing.trace(writer, [row], [row.index])]
        seconds = (time.monotonic() - started) / len(found)
        for result in found:
            if result.failure is not None:
                raise TraceError(f"the probe of --dry-run failed: {result.failure} (--no-probe skips it)")
            writer.row(result.row.index, bundle.add(result.arrays) if schema.bundle else result.arrays)
        if schema.bundle:
            writer.bundle(0, [row.index for row in few.plan.rows()], bundle.moments())
    return seconds, writer.shares


class Sparse(Writer):
    """Writes some of the hidden states, evenly spread over steps and blocks."""

    def __init__(self, path: Path, hidden: Any) -> None:
        super().__init__(path)
        self._kept: dict[str, set[tuple[int, int]]] = {}
        self.shares: dict[str, float] = {}
        for name, axes in hidden.items():
            places = list(itertools.product(range(len(axes.steps)), range(len(axes.blocks))))
            chosen = np.linspace(0, len(places) - 1, min(SLICES, len(places))).round().astype(int)
            self._kept[name] = {places[number] for number in chosen}
            self.shares[f"hidden/{name}/hidden"] = len(self._kept[name]) / len(places)

    def hidden(self, stream: str, place: tuple[int, int, int], state: Callable[[], Array], size: int) -> None:
        """Queue one hidden state if it is in the measured subset."""
        if place[1:] in self._kept[stream]:
            super().hidden(stream, place, state, size)


def _all(schema: Schema) -> dict[str, Variable]:
    """Every large variable by its path in the store, including the summary."""
    found = schema.variables()
    for name, variable in dataclasses.replace(schema, bundle=0).variables().items():
        if name.split("/")[0] in FOLDED:
            source = f"bundles/{name}" if schema.bundle else name
            sizes = {"moment": 2, **{axis: size for axis, size in variable.sizes.items() if axis != "prompt"}}
            found[f"summary/{source}"] = Variable(sizes, sizes, None)
    return found


def _assumed(dtype: str, name: str, variable: Variable) -> Size:
    copied = name.startswith(("hidden", "gates"))  # values of the model's dtype: bfloat16 leaves zero bits to compress
    share = SHARE[dtype if copied else "float32"] if variable.compressed else 1.0
    return Size(name, variable.sizes, variable.bytes, round(variable.bytes * share))


def _bytes(folder: Path) -> float:
    return float(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))
