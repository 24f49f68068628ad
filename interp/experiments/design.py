"""Designs: experiments that are ready to run. `Drawing` draws pictures of rows under arms, `Measuring` keeps numbers alone."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp.base.errors import InputError
from interp.base.executor import Execution, Progress, Stopped
from interp.base.plan import as_json, at_least
from interp.experiments.draw import Arm, Cells, Units
from interp.runs.provenance import provenance
from interp.store.experiment import (
    CellLayout,
    Experiment,
    experiment_lock,
    is_experiment,
    open_experiment,
    open_or_create,
)
from interp.store.locations import absolute, exists
from interp.store.parts import Parts
from interp.store.saved_results import write_result
from interp.store.schema import Array
from interp.tracing.prepare import Prepared

MEASURES = ("changed_energy", "dose", "forwards")
Results = Mapping[str, xr.Dataset]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an experiment takes."""

    rows: int
    arms: int
    pictures: int
    forwards: float
    """Of one row through the transformer."""
    held: float = 0.0
    """Bytes of clean runs' states that are in memory while a row is drawn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Design(abc.ABC):
    """An experiment that is ready to run: everything is checked, channels are chosen."""

    kind: str
    prepared: Prepared
    out: Path
    parameters: Mapping[str, Any]
    """What was asked, as the store keeps it: a store of other parameters is refused."""
    execution: Execution

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", as_json(dict(self.parameters), "parameters"))
        if exists(self.out) and not (exists(self.out / "zarr.json") and is_experiment(self.out)):
            raise InputError(f"out: {self.out} exists and is no experiment; give another --out, or delete it")

    @property
    @abc.abstractmethod
    def cost(self) -> Cost:
        """What it takes, all of it."""

    @abc.abstractmethod
    def run(self, **changes: Any) -> Experiment:
        """Do what is missing, measure, keep the results in the store and open it; `changes` are of the execution."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing(Design):
    """Pictures of every row under every arm."""

    arms: tuple[Arm, ...]
    units: Callable[[int], Units]
    """How cells are drawn, for a batch size."""
    measure: Callable[[Experiment], Results]
    """The results, from all that is drawn."""
    planned: Array | None = None
    """Which cells are drawn, (prompt, arm) booleans; by default all."""
    further: float = 0.0
    """Forwards that its arms need beside their own, such as other prompts' clean runs."""
    held: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise InputError(f"arms must have names of their own; got {names[:8]}")

    @property
    def wanted(self) -> Array:
        """Which cells are drawn, (prompt, arm) booleans."""
        return np.ones((len(self.prepared.plan.rows()), len(self.arms)), bool) if self.planned is None else self.planned

    @property
    def cost(self) -> Cost:
        """Pictures, and forwards of one row."""
        wanted = self.wanted
        forwards = self.units(self.execution.batch_size).forwards(wanted) + self.further
        return Cost(len(wanted), len(self.arms), int(wanted.sum()), forwards, self.held)

    def run(self, **changes: Any) -> Experiment:
        """Draw what is missing, measure, and keep the results in the store."""
        self.prepared.check_unchanged()
        how = dataclasses.replace(self.execution, **changes)
        drawn = self._fill(self.units(at_least("batch_size", how.batch_size, 1)), how)
        for name, result in self.measure(drawn).items():
            write_result(drawn.path, name, result)
        return drawn

    def _fill(self, units: Units, how: Execution) -> Experiment:
        """Fill the store with the cells that are planned, and open it."""
        path, wanted = self.out, self.wanted
        started, drawn = time.monotonic(), 0
        with experiment_lock(path):
            done = open_or_create(path, self._layout(), self._attributes(how))

            def tell(row: int, arm: int) -> None:
                nonlocal drawn
                if not done[row, arm]:
                    done[row, arm], drawn = True, drawn + 1
                    seconds = time.monotonic() - started
                    how.on_progress(Progress(int(done[wanted].sum()), int(wanted.sum()), drawn, seconds))

            pending = units.units(wanted & ~done)
            with contextlib.closing(how.through(Cells(units, absolute(path), tell), pending, how.stopped)) as outcomes:
                for _, cells in outcomes:
                    for cell in cells:  # drawn here, they were told one by one
                        tell(*cell)
            if how.stopped() and not done[wanted].all():
                raise KeyboardInterrupt
        return open_experiment(path)

    def _layout(self) -> CellLayout:
        rows, arms = self.prepared.plan.rows(), self.arms
        return CellLayout(
            prompt_text=tuple(row.text for row in rows),
            seed=tuple(row.seed for row in rows),
            arms=tuple(arm.name for arm in arms),
            labels={name: [arm.labels[name] for arm in arms] for name in (arms[0].labels if arms else {})},
            planned=self.wanted,
            image=(self.prepared.plan.height, self.prepared.plan.width),
            latents=self.prepared.layout.latents,
            measures=MEASURES,
        )

    def _attributes(self, how: Execution) -> dict[str, Any]:
        attributes = {
            "experiment": self.kind,
            "parameters": self.parameters,
            "arms": [{"name": arm.name, "edits": [edit.to_json() for edit in arm.edits], **arm.said} for arm in self.arms],
            "plan": self.prepared.plan.to_json(),
            "provenance": provenance(self.prepared.model, how.batch_size) | how.through.provenance(),
        }
        found: dict[str, Any] = as_json(attributes, "attributes")
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measuring(Design):
    """Numbers of units of work, kept until all are there; then one result, in a store like the others."""

    measure_unit: Callable[[int], dict[str, Array]]
    """What one unit gives, kept as it is."""
    collect: Callable[[list[dict[str, Array]]], xr.Dataset]
    """The result, named as the kind, from what every unit gave; it has no other state."""
    units: int
    forwards: float

    @property
    def cost(self) -> Cost:
        """No pictures; forwards of one row."""
        return Cost(len(self.prepared.plan.rows()), 1, 0, self.forwards)

    def run(self, **changes: Any) -> Experiment:
        """Measure what is missing, and make the store with the result in it."""
        self.prepared.check_unchanged()
        how = dataclasses.replace(self.execution, **changes)
        parts = Parts(self.out, {**self.prepared.plan.to_json(), self.kind: self.parameters}, self.kind)
        if parts.finished() is None:
            self._measure(parts, how)
            found = self.collect([parts.read(unit) for unit in range(self.units)])
            made = provenance(self.prepared.model, how.batch_size) | how.through.provenance()
            parts.finish(found, self.prepared.plan.rows(), made)
        return open_experiment(self.out)

    def _measure(self, parts: Parts, how: Execution) -> None:
        started, total = time.monotonic(), self.units
        missing = [unit for unit in range(total) if not parts.has(unit)]
        made, done = 0, total - len(missing)
        with contextlib.closing(how.through(Numbers(parts, self.measure_unit), missing, how.stopped)) as outcomes:
            for made, _ in enumerate(outcomes, 1):
                how.on_progress(Progress(done + made, total, made, time.monotonic() - started))
        if how.stopped() and done + made < total:
            raise KeyboardInterrupt


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Units that are measured, as work for this process or for others; each writes its own part."""

    parts: Parts
    measure: Callable[[int], dict[str, Array]]

    @contextlib.contextmanager
    def opened(self, stopped: Stopped) -> Iterator[Callable[[int], list[int]]]:
        """What measures a unit that is not there."""

        def do(unit: int) -> list[int]:
            if not self.parts.has(unit):
                self.parts.write(unit, self.measure(unit))
            return [unit]

        yield do
