"""The engine of picture experiments: what every row is drawn under (arms), and how their cells are drawn.

Per row: the clean run once, then the arms in batches, in the order in which they leave it. What arms share with the clean run
is not computed again (`interp.interventions.forks`).
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from interp.base.errors import InputError
from interp.base.executor import Stopped
from interp.base.plan import Row
from interp.base.sites import Site
from interp.experiments.clean import Array, Clean, clean_run, sample
from interp.interventions import Intervention
from interp.interventions.forks import Forks, Place, first_place
from interp.interventions.selection import Selection
from interp.store.create import zarr_quiet
from interp.store.reader import is_done
from interp.store.writer import Writer
from interp.tracing.prepare import Prepared


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to draw a row."""

    name: str
    edits: tuple[Intervention, ...] = ()
    """Those of every row; or, where the experiment makes them row by row, what stands for them in the cost: see `Bind`."""
    labels: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Coordinates of the arm, such as its block."""
    said: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What is done, for the store, where the edits are made row by row."""
    place: Place | None = None
    """Where it leaves the clean run, if its edits are made row by row."""

    @property
    def leaves(self) -> Place | None:
        """Where it first differs from the clean run; `None` for never."""
        return self.place or first_place(self.edits)


EditsOf = Callable[[Arm], Sequence[Intervention] | Clean]
"""The edits of an arm for one row; or, for an arm that never leaves its clean run, another run whose picture it shows."""
Bind = Callable[[Row, Clean], EditsOf]
"""(row, its clean run) -> the edits of each arm for this row."""
Outputs = tuple[int, dict[str, Array], dict[str, Array]]
"""(arm's number, outputs, measures)."""
Unit = tuple[tuple[Row, ...], tuple[int, ...]]
"""Rows and arms that are drawn in one go."""


class Units(Protocol):
    """How an experiment's cells are drawn."""

    def units(self, pending: Array) -> list[Unit]:
        """What is drawn together, of the pending cells, (prompt, arm) booleans."""

    def draw(self, unit: Unit, pending: Callable[[int, int], bool]) -> Iterator[tuple[int, Outputs]]:
        """(row's number, what it gave) for the pending cells of a unit."""

    def forwards(self, pending: Array) -> float:
        """Forwards of one row through the transformer that the pending cells take, clean runs included."""


@dataclasses.dataclass(frozen=True)
class ByRow(abc.ABC):
    """All arms of a row together."""

    prepared: Prepared
    arms: Sequence[Arm]

    @abc.abstractmethod
    def draw_row(self, row: Row, pending: Sequence[int]) -> Iterator[Outputs]:
        """What each of a row's pending arms gave."""

    @abc.abstractmethod
    def row_forwards(self, pending: Sequence[int]) -> float:
        """Forwards of one row that its pending arms take."""

    def units(self, pending: Array) -> list[Unit]:
        """A row each."""
        arms = [tuple(int(arm) for arm in np.flatnonzero(row)) for row in pending]
        return [((row,), here) for row, here in zip(self.prepared.plan.rows(), arms, strict=True) if here]

    def draw(self, unit: Unit, pending: Callable[[int, int], bool]) -> Iterator[tuple[int, Outputs]]:
        """The pending arms of the row."""
        (row,), arms = unit
        here = [arm for arm in arms if pending(row.index, arm)]
        for outputs in self.draw_row(row, here) if here else ():
            yield row.index, outputs

    def forwards(self, pending: Array) -> float:
        """Rows with the same pending arms take the same."""
        kinds, counts = np.unique(pending, axis=0, return_counts=True)
        pairs = [(np.flatnonzero(kind).tolist(), int(count)) for kind, count in zip(kinds, counts, strict=True)]
        return sum(count * self.row_forwards(here) for here, count in pairs if here)


@dataclasses.dataclass(frozen=True)
class ByArms(ByRow):
    """Arms that fork off the row's clean run, in batches; `keep` names states of the clean runs that `bind` needs."""

    batch_size: int
    bind: Bind | None = None
    keep: Sequence[tuple[int, Site]] = ()

    def __post_init__(self) -> None:
        """Refuse arms that name what the model or the run does not have, before anything is drawn."""
        prepared = self.prepared
        anatomy = prepared.model.anatomy
        tokens = {stream: prepared.layout.tokens(stream) for stream in anatomy.streams}
        for edit in (edit for arm in self.arms for edit in arm.edits if isinstance(edit, Selection)):
            edit.check(anatomy, len(prepared.schedule.timesteps), tokens)
            check_stream(prepared, edit)

    def draw_row(self, row: Row, pending: Sequence[int]) -> Iterator[Outputs]:
        """The clean run, then its arms."""
        clean = clean_run(self.prepared, row, self.keep)
        edits_of: EditsOf = self.bind(row, clean) if self.bind is not None else (lambda arm: arm.edits)
        for batch in self.batches(pending):
            yield from self._draw(row, clean, batch, edits_of)

    def row_forwards(self, pending: Sequence[int]) -> float:
        """The clean run's, and each batch's."""
        own = len(self.prepared.schedule.timesteps)
        return own + sum(
            self._batch_forwards([self.arms[number].leaves for number in batch]) for batch in self.batches(pending)
        )

    def batches(self, pending: Sequence[int]) -> list[list[int]]:
        """Arms that leave the clean run near each other together; those that never do by themselves."""
        arms, size = self.arms, self.batch_size
        never = [number for number in pending if arms[number].leaves is None]
        leaving = sorted((n for n in pending if arms[n].leaves is not None), key=lambda n: (arms[n].leaves, n))
        batches = [leaving[start : start + size] for start in range(0, len(leaving), size)]
        return [never, *batches] if never else batches

    def _draw(self, row: Row, clean: Clean, batch: Sequence[int], edits_of: EditsOf) -> list[Outputs]:
        """What a batch of arms gave."""
        prepared, arms = self.prepared, self.arms
        if arms[batch[0]].leaves is None:
            measured = measures(0.0, 0.0, len(clean.calls.predictions))
            shown = [(number, edits_of(arms[number])) for number in batch]
            runs = [(number, given if isinstance(given, Clean) else clean) for number, given in shown]
            return [(number, {"image": run.image, "latents": run.latents}, measured) for number, run in runs]
        with prepared.model.lock:
            edits = [given for number in batch if not isinstance(given := edits_of(arms[number]), Clean)]
            forks = Forks(prepared.model.anatomy, edits, clean.calls)
            with forks.drawing(prepared.model.pipe.transformer):
                images, latents = sample(prepared, [row] * len(batch))
        steps, share = len(prepared.schedule.timesteps), forks.forwards / len(batch)
        return [
            (number, {"image": images[p], "latents": latents[p]}, measures(forks.changed(p), forks.dose(p, steps), share))
            for p, number in enumerate(batch)
        ]

    def _batch_forwards(self, places: Sequence[Place | None]) -> float:
        """Of one batch: in the step in which some leave, one row is all of theirs, and at last one leaver's."""
        steps, blocks = len(self.prepared.schedule.timesteps), len(self.prepared.model.anatomy.blocks)
        leaving = [place for place in places if place is not None]
        total = 0.0
        for step in range(steps):
            total += sum(place[0] < step or (place[0] == step and place[1] < 0) for place in leaving)
            forks = sorted(max(block + part, 0) for begin, block, part in leaving if begin == step and block >= 0)
            total += (1.0 if forks else 0.0) + sum((blocks - fork) / blocks for fork in forks[:-1])
        return total


def measures(changed_energy: float, dose: float, forwards: float) -> dict[str, Array]:
    """Numbers of a cell; forwards are the cell's share of its batch's."""
    found = {"changed_energy": changed_energy, "dose": dose, "forwards": forwards}
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def check_stream(prepared: Prepared, edit: Selection) -> None:
    """Refuse an edit of a state that none of its blocks has: it would touch nothing."""
    blocks: Any = edit.blocks
    described = [prepared.model.anatomy.blocks[block] for block in blocks or range(len(prepared.model.anatomy.blocks))]
    if edit.is_hidden and edit.stream != "both" and not any(edit.stream in block.hidden for block in described):
        raise InputError(f"stream: blocks {list(blocks or ())} hand on no {edit.stream} state; choose other blocks")


@dataclasses.dataclass(frozen=True)
class Cells:
    """The units of an experiment, as work for this process or for others; each writes its own cells."""

    how: Units
    path: Path
    told: Callable[[int, int], None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without what listens here: it cannot travel."""
        return {**self.__dict__, "told": None}

    @contextlib.contextmanager
    def opened(self, stopped: Stopped) -> Iterator[Callable[[Unit], list[tuple[int, int]]]]:
        """What draws a unit's cells that are not drawn."""
        with zarr_quiet(), Writer(self.path) as writer:

            def do(unit: Unit) -> list[tuple[int, int]]:
                drawn = []
                for row, (arm, outputs, measured) in self.how.draw(unit, lambda *cell: not is_done(self.path, *cell)):
                    writer.row((row, arm), {"outputs": outputs, "cells": measured})
                    drawn.append((row, arm))
                    if self.told is not None:
                        self.told(row, arm)
                return drawn

            yield do
