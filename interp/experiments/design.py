"""Designs: experiments that are ready to run. `Drawing` draws every sample under every arm; `Measuring` stores numbers only."""

from __future__ import annotations

import abc
import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp.base.errors import InputError
from interp.base.executor import Execution, Progress, Stopped
from interp.base.plan import as_json
from interp.base.site_recorder import at_least
from interp.experiments.draw import Arm, Cells, Units
from interp.runs.run import provenance
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
    """The size of an experiment."""

    rows: int
    arms: int
    pictures: int
    forwards: float
    """Forward passes of one row through the transformer."""
    held: float = 0.0
    """Bytes of clean states in memory while a sample is drawn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Design(abc.ABC):
    """An experiment that is ready to run, with checked arguments and chosen channels."""

    kind: str
    prepared: Prepared
    out: Path
    parameters: Mapping[str, Any]
    """The parameters in the store; a store with other parameters raises PlanError."""
    execution: Execution

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", as_json(dict(self.parameters), "parameters"))
        if exists(self.out) and not (exists(self.out / "zarr.json") and is_experiment(self.out)):
            raise InputError(f"out: {self.out} exists and is not an experiment; give another --out, or delete it")

    @property
    @abc.abstractmethod
    def cost(self) -> Cost:
        """The size of the whole experiment."""

    @abc.abstractmethod
    def run(self, **changes: Any) -> Experiment:
        """Do the missing units, compute and store the results, and open the store; `changes` are fields of `Execution`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing(Design):
    """Pictures of every sample under every arm."""

    arms: tuple[Arm, ...]
    units: Callable[[int], Units]
    """Batch size -> the engine that draws the cells."""
    measure: Callable[[Experiment], Results]
    """The results, from the drawn pictures."""
    planned: Array | None = None
    """The cells to draw, (prompt, arm) booleans; by default all."""
    further: float = 0.0
    """Forward passes in addition to those of the arms, such as other prompts' clean runs."""
    held: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [arm.name for arm in self.arms]
        twice = [name for name, count in collections.Counter(names).items() if count > 1]
        if twice:
            raise InputError(f"arms must have names of their own; {twice[0]!r} names two arms; rename or remove one")

    @property
    def wanted(self) -> Array:
        """The cells to draw, (prompt, arm) booleans."""
        return np.ones((len(self.prepared.plan.rows()), len(self.arms)), bool) if self.planned is None else self.planned

    @property
    def cost(self) -> Cost:
        """Numbers of pictures and of forward passes of one row."""
        wanted = self.wanted
        forwards = self.units(self.prepared.together(self.execution.batch_size)).forwards(wanted) + self.further
        return Cost(len(wanted), len(self.arms), int(wanted.sum()), forwards, self.held)

    def run(self, **changes: Any) -> Experiment:
        """Draw the missing cells, and compute and store the results."""
        self.prepared.check_unchanged()
        how = dataclasses.replace(self.execution, **changes)
        drawn = self._fill(self.units(self.prepared.together(at_least("batch_size", how.batch_size, 1))), how)
        self.prepared.check_kept(str(self.out))
        for name, result in self.measure(drawn).items():
            write_result(drawn.path, name, result)
        return drawn

    def _fill(self, units: Units, how: Execution) -> Experiment:
        """Draw the planned cells that the store does not hold, and open it."""
        path, wanted = self.out, self.wanted
        attributes = {
            "experiment": self.kind,
            "parameters": self.parameters,
            "arms": [{"name": arm.name, "edits": [edit.to_json() for edit in arm.edits], **arm.said} for arm in self.arms],
            "plan": self.prepared.plan.to_json(),
            "provenance": provenance(self.prepared.model, how.batch_size) | how.through.provenance(),
        }
        started, drawn = time.monotonic(), 0
        with experiment_lock(path):
            done = open_or_create(path, self._layout(), as_json(attributes, "attributes"))
            pending = units.units(wanted & ~done)
            with contextlib.closing(how.through(Cells(units, absolute(path)), pending, how.stopped)) as outcomes:
                for row, arm in (cell for _, cells in outcomes for cell in cells if not done[cell]):
                    done[row, arm], drawn = True, drawn + 1
                    seconds = time.monotonic() - started
                    how.on_progress(Progress(int(done[wanted].sum()), int(wanted.sum()), drawn, seconds))
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measuring(Design):
    """Numbers of units of work, stored until all units are done; then one result in a store."""

    measure_unit: Callable[[int], dict[str, Array]]
    """The arrays of one unit, stored unchanged."""
    collect: Callable[[list[dict[str, Array]]], xr.Dataset]
    """The result, named as the kind, from the arrays of every unit."""
    units: int
    forwards: float

    @property
    def cost(self) -> Cost:
        """No pictures; the forward passes of one row."""
        return Cost(len(self.prepared.plan.rows()), 1, 0, self.forwards)

    def run(self, **changes: Any) -> Experiment:
        """Measure the missing units, and create the store with the result."""
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
    """The units of a `Measuring` as work; each unit writes its part."""

    parts: Parts
    measure: Callable[[int], dict[str, Array]]

    def do(self, units: Iterable[int], stopped: Stopped) -> Iterator[list[int]]:
        """Measure the units that are not done."""
        for unit in units:
            if not self.parts.has(unit):
                self.parts.write(unit, self.measure(unit))
            yield [unit]
