"""The engine of picture experiments: every sample is drawn under every arm; a cell is one sample under one arm.

Per sample: the clean run once, then the arms in batches, sorted by the place where they first differ from it. Computation that
arms share with the clean run is not repeated (`interp.interventions.forks`).
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from interp.base.errors import InputError
from interp.base.executor import Stopped
from interp.base.plan import Row
from interp.base.sites import Site
from interp.base.streams import ALL
from interp.experiments.clean import Array, Clean, clean_run, sample
from interp.interventions import Intervention
from interp.interventions.forks import Forks, Place, first_place
from interp.interventions.selection import Selection, resolved
from interp.models.anatomy import Anatomy
from interp.store.create import zarr_quiet
from interp.store.reader import is_done
from interp.store.writer import Writer
from interp.tracing.prepare import Prepared


@dataclasses.dataclass(frozen=True)
class Arm:
    """One condition under which every sample is drawn."""

    name: str
    edits: tuple[Intervention, ...] = ()
    """The edits of every sample. If `Bind` makes edits per sample, these only determine the cost."""
    labels: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Coordinates of the arm in the store, such as its block."""
    said: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """A description for the store, if the edits are made per sample."""
    place: Place | None = None
    """Where it first differs from the clean run, if its edits are made per sample."""

    @property
    def leaves(self) -> Place | None:
        """Where it first differs from the clean run; `None` if it never does."""
        return self.place or first_place(self.edits)


EditsOf = Callable[[Arm], Sequence[Intervention] | Clean]
"""The edits of an arm for one sample; or, for an arm without edits, another run that supplies its picture."""
Bind = Callable[[Row, Clean], EditsOf]
"""(row, its clean run) -> the edits of each arm for this row."""
Outputs = tuple[int, dict[str, Array], dict[str, Array]]
"""(arm's number, outputs, measures)."""
Unit = tuple[tuple[Row, ...], tuple[int, ...]]
"""Rows and arms that are drawn together."""


def with_names(arms: Sequence[Arm], anatomy: Anatomy) -> list[Arm]:
    """The arms, with the names of their edits' streams in place of roles."""
    return [dataclasses.replace(arm, edits=tuple(resolved(edit, anatomy) for edit in arm.edits)) for arm in arms]


class Units(Protocol):
    """Draws the cells of an experiment."""

    def units(self, pending: Array) -> list[Unit]:
        """The units of the pending cells, (prompt, arm) booleans."""

    def draw(self, unit: Unit, pending: Callable[[int, int], bool]) -> Iterator[tuple[int, Outputs]]:
        """Draw the pending cells of a unit: (row index, outputs) each."""

    def forwards(self, pending: Array) -> float:
        """Forward passes of one row that the pending cells need, including clean runs."""


@dataclasses.dataclass(frozen=True)
class ByRow(abc.ABC):
    """Draws all arms of a row together."""

    prepared: Prepared
    arms: Sequence[Arm]

    @abc.abstractmethod
    def draw_row(self, row: Row, pending: Sequence[int]) -> Iterator[Outputs]:
        """Draw a row's pending arms."""

    @abc.abstractmethod
    def row_forwards(self, pending: Sequence[int]) -> float:
        """Forward passes of one row that its pending arms need."""

    def units(self, pending: Array) -> list[Unit]:
        """One unit per row."""
        arms = [tuple(int(arm) for arm in np.flatnonzero(row)) for row in pending]
        return [((row,), here) for row, here in zip(self.prepared.plan.rows(), arms, strict=True) if here]

    def draw(self, unit: Unit, pending: Callable[[int, int], bool]) -> Iterator[tuple[int, Outputs]]:
        """Draw the pending arms of the row."""
        (row,), arms = unit
        here = [arm for arm in arms if pending(row.index, arm)]
        for outputs in self.draw_row(row, here) if here else ():
            yield row.index, outputs

    def forwards(self, pending: Array) -> float:
        """Forward passes; counted once for all rows with the same pending arms."""
        kinds, counts = np.unique(pending, axis=0, return_counts=True)
        pairs = [(np.flatnonzero(kind).tolist(), int(count)) for kind, count in zip(kinds, counts, strict=True)]
        return sum(count * self.row_forwards(here) for here, count in pairs if here)


@dataclasses.dataclass(frozen=True)
class ByArms(ByRow):
    """Arms that fork off the row's clean run, in batches; `keep` lists the clean states that `bind` needs."""

    batch_size: int
    bind: Bind | None = None
    keep: Sequence[tuple[int, Site]] = ()

    def __post_init__(self) -> None:
        """Raise InputError for edits of places that the model or the run does not have, or of states that no block outputs."""
        prepared = self.prepared
        anatomy = prepared.model.anatomy
        tokens = {stream: prepared.layout.tokens(stream) for stream in anatomy.stream_names}
        edits = [resolved(edit, anatomy) for arm in self.arms for edit in arm.edits if isinstance(edit, Selection)]
        for edit in edits:
            edit.check(anatomy, len(prepared.schedule.timesteps), tokens)
            blocks: Any = edit.blocks
            described = [anatomy.blocks[block] for block in blocks or range(len(anatomy.blocks))]
            if edit.is_hidden and edit.stream != ALL and not any(edit.stream in block.hidden for block in described):
                raise InputError(f"stream: blocks {list(blocks or ())} output no {edit.stream} state; choose other blocks")

    def draw_row(self, row: Row, pending: Sequence[int]) -> Iterator[Outputs]:
        """Draw the clean run, then its arms."""
        clean = clean_run(self.prepared, row, self.keep)
        edits_of: EditsOf = self.bind(row, clean) if self.bind is not None else (lambda arm: arm.edits)
        for batch in self.batches(pending):
            yield from self._draw(row, clean, batch, edits_of)

    def row_forwards(self, pending: Sequence[int]) -> float:
        """Forward passes of the clean run and of each batch."""
        own = len(self.prepared.schedule.timesteps)
        return own + sum(
            self._batch_forwards([self.arms[number].leaves for number in batch]) for batch in self.batches(pending)
        )

    def batches(self, pending: Sequence[int]) -> list[list[int]]:
        """Group arms that first differ from the clean run at near places; arms that never differ are one batch."""
        arms, size = self.arms, self.batch_size
        never = [number for number in pending if arms[number].leaves is None]
        leaving = sorted((n for n in pending if arms[n].leaves is not None), key=lambda n: (arms[n].leaves, n))
        batches = [leaving[start : start + size] for start in range(0, len(leaving), size)]
        return [never, *batches] if never else batches

    def _draw(self, row: Row, clean: Clean, batch: Sequence[int], edits_of: EditsOf) -> list[Outputs]:
        """Draw a batch of arms."""
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
        """Forward passes of one batch. In the step in which arms fork, they share one row up to their blocks."""
        steps, blocks = len(self.prepared.schedule.timesteps), len(self.prepared.model.anatomy.blocks)
        leaving = [place for place in places if place is not None]
        total = 0.0
        for step in range(steps):
            total += sum(place[0] < step or (place[0] == step and place[1] < 0) for place in leaving)
            forks = sorted(max(block + part, 0) for begin, block, part in leaving if begin == step and block >= 0)
            total += (1.0 if forks else 0.0) + sum((blocks - fork) / blocks for fork in forks[:-1])
        return total


def measures(changed_energy: float, dose: float, forwards: float) -> dict[str, Array]:
    """The measures of a cell; `forwards` is its share of the batch's forward passes."""
    found = {"changed_energy": changed_energy, "dose": dose, "forwards": forwards}
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


@dataclasses.dataclass(frozen=True)
class Cells:
    """The units of an experiment as work; each unit writes its cells."""

    how: Units
    path: Path

    def do(self, units: Iterable[Unit], stopped: Stopped) -> Iterator[list[tuple[int, int]]]:
        """Draw the cells of units that are not done, and yield each."""
        with zarr_quiet(), Writer(self.path) as writer:
            for unit in units:
                for row, (arm, outputs, measured) in self.how.draw(unit, lambda *cell: not is_done(self.path, *cell)):
                    writer.row((row, arm), {"outputs": outputs, "cells": measured})
                    yield [(row, arm)]
