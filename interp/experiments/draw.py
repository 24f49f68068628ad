"""The engine of picture experiments: every row under every arm, into a store, a cell at a time.

Per row: the clean run once, then the arms in batches, in the order in which they leave it. What arms share with the clean run
is not computed again (`interp.interventions.rows`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from interp.errors import InputError
from interp.executor import HERE, Executor, Stopped
from interp.experiments.clean import Array, Clean, clean_run, sample
from interp.interventions import Intervention
from interp.interventions.rows import Forks, Place, first_place
from interp.interventions.selection import Selection
from interp.plan import Row, as_json, at_least
from interp.provenance import provenance
from interp.sites import Site
from interp.store.create import zarr_quiet
from interp.store.experiment import Experiment, Layout, experiment_lock, open_experiment, open_or_create
from interp.store.places import absolute, located
from interp.store.reader import is_done
from interp.store.writer import Writer
from interp.tracing.prepare import Prepared

MEASURES = ("changed_energy", "dose", "forwards")
BATCH_SIZE = 8


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


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far an experiment is; handed to `on_progress` after every cell."""

    done: int
    total: int
    drawn: int
    """Cells drawn by this call."""
    seconds: float
    """Since this call began."""


OnProgress = Callable[[Progress], None]


Outputs = tuple[int, dict[str, Array], dict[str, Array]]
"""(arm's number, outputs, measures)."""
DrawRow = Callable[[Row, Sequence[int]], Iterator[Outputs]]
"""(row, its arms not drawn yet) -> what each gave."""
Unit = tuple[tuple[Row, ...], tuple[int, ...]]
"""Rows and arms that are drawn in one go."""


class Units(Protocol):
    """How an experiment's cells are drawn."""

    def units(self, pending: Array) -> list[Unit]:
        """What is drawn together, of the pending cells, (prompt, arm) booleans."""

    def draw(self, unit: Unit, pending: Callable[[int, int], bool]) -> Iterator[tuple[int, Outputs]]:
        """(row's number, what it gave) for the pending cells of a unit."""


@dataclasses.dataclass(frozen=True)
class ByRows:
    """All arms of a row together."""

    rows: Sequence[Row]
    draw_row: DrawRow

    def units(self, pending: Array) -> list[Unit]:
        """A row each."""
        arms = [tuple(int(arm) for arm in np.flatnonzero(pending[row.index])) for row in self.rows]
        return [((row,), here) for row, here in zip(self.rows, arms, strict=True) if here]

    def draw(self, unit: Unit, pending: Callable[[int, int], bool]) -> Iterator[tuple[int, Outputs]]:
        """The pending arms of the row."""
        (row,), arms = unit
        here = [arm for arm in arms if pending(row.index, arm)]
        for outputs in self.draw_row(row, here) if here else ():
            yield row.index, outputs


@dataclasses.dataclass(frozen=True)
class Drawing:
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


def draw(
    prepared: Prepared,
    arms: Sequence[Arm],
    *,
    bind: Bind | None = None,
    keep: Sequence[tuple[int, Site]] = (),
    batch_size: int = BATCH_SIZE,
    **given: Any,
) -> Experiment:
    """Draw what is planned and not drawn yet, and open the store; `given` are arguments of `fill`.

    `keep` names states of the clean runs that `bind` needs.
    """
    size = at_least("batch_size", batch_size, 1)
    _check(prepared, arms)

    def draw_row(row: Row, pending: Sequence[int]) -> Iterator[Outputs]:
        clean = clean_run(prepared, row, keep)
        edits_of: EditsOf = bind(row, clean) if bind is not None else (lambda arm: arm.edits)
        for batch in _batches(arms, pending, size):
            yield from _draw_batch(prepared, row, clean, arms, batch, edits_of)

    return fill(prepared, arms, ByRows(prepared.plan.rows(), draw_row), batch_size=size, **given)


def fill(
    prepared: Prepared,
    arms: Sequence[Arm],
    how: Units,
    *,
    experiment: str,
    parameters: Mapping[str, Any],
    out: str | Path,
    planned: Array | None = None,
    batch_size: int = BATCH_SIZE,
    through: Executor = HERE,
    on_progress: OnProgress = lambda progress: None,
    stopped: Stopped = lambda: False,
) -> Experiment:
    """Fill an experiment's store with the cells that are planned, (prompt, arm) booleans, by default all, and open it.

    `through` draws the units: this process, or workers. `stopped` is asked after every unit.
    """
    path, rows = located(out), prepared.plan.rows()
    wanted = np.ones((len(rows), len(arms)), bool) if planned is None else planned
    layout = Layout(
        prompt_text=tuple(row.text for row in rows),
        seed=tuple(row.seed for row in rows),
        arms=tuple(arm.name for arm in arms),
        labels={name: [arm.labels[name] for arm in arms] for name in (arms[0].labels if arms else {})},
        planned=wanted,
        image=(prepared.plan.height, prepared.plan.width),
        latents=prepared.layout.latents,
        measures=MEASURES,
    )
    attributes = {
        "experiment": experiment,
        "parameters": as_json(dict(parameters), "parameters"),
        "arms": [{"name": arm.name, "edits": [edit.to_json() for edit in arm.edits], **arm.said} for arm in arms],
        "plan": prepared.plan.to_json(),
        "provenance": provenance(prepared.model, batch_size) | through.provenance(),
    }
    started, drawn = time.monotonic(), 0
    with experiment_lock(path):
        done = open_or_create(path, layout, as_json(attributes, "attributes"))

        def tell(row: int, arm: int) -> None:
            nonlocal drawn
            if not done[row, arm]:
                done[row, arm], drawn = True, drawn + 1
                on_progress(Progress(int(done[wanted].sum()), int(wanted.sum()), drawn, time.monotonic() - started))

        units = how.units(wanted & ~done)
        with contextlib.closing(through(Drawing(how, absolute(path), tell), units, stopped)) as outcomes:
            for _, cells in outcomes:
                for cell in cells:  # drawn here, they were told one by one
                    tell(*cell)
        if stopped() and not done[wanted].all():
            raise KeyboardInterrupt
    return open_experiment(path)


def _batches(arms: Sequence[Arm], pending: Sequence[int], size: int) -> list[list[int]]:
    """Arms that leave the clean run near each other together; those that never do by themselves."""
    never = [number for number in pending if arms[number].leaves is None]
    leaving = sorted((n for n in pending if arms[n].leaves is not None), key=lambda n: (arms[n].leaves, n))
    batches = [leaving[start : start + size] for start in range(0, len(leaving), size)]
    return [never, *batches] if never else batches


def _draw_batch(
    prepared: Prepared,
    row: Row,
    clean: Clean,
    arms: Sequence[Arm],
    batch: Sequence[int],
    edits_of: EditsOf,
) -> list[Outputs]:
    """What a batch of arms gave."""
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


def measures(changed_energy: float, dose: float, forwards: float) -> dict[str, Array]:
    """Numbers of a cell; forwards are the cell's share of its batch's."""
    found = {"changed_energy": changed_energy, "dose": dose, "forwards": forwards}
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def _check(prepared: Prepared, arms: Sequence[Arm]) -> None:
    """Refuse arms that name what the model or the run has not, before anything is drawn."""
    names = [arm.name for arm in arms]
    if len(set(names)) != len(names):
        raise InputError(f"arms must have names of their own; got {names[:8]}")
    anatomy = prepared.model.anatomy
    tokens = {stream: prepared.layout.tokens(stream) for stream in anatomy.streams}
    for arm in arms:
        for edit in arm.edits:
            if isinstance(edit, Selection):
                edit.check(anatomy.streams, len(anatomy.blocks), anatomy.channels, len(prepared.schedule.timesteps), tokens)
                _check_stream(prepared, edit)


def _check_stream(prepared: Prepared, edit: Selection) -> None:
    """Refuse an edit of a state that none of its blocks has: it would touch nothing."""
    blocks: Any = edit.blocks
    described = [prepared.model.anatomy.blocks[block] for block in blocks or range(len(prepared.model.anatomy.blocks))]
    if edit.is_hidden and edit.stream != "both" and not any(edit.stream in block.hidden for block in described):
        raise InputError(f"stream: blocks {list(blocks or ())} hand on no {edit.stream} state; choose other blocks")


def cost(
    prepared: Prepared, arms: Sequence[Arm], planned: Array | None = None, batch_size: int = BATCH_SIZE
) -> dict[str, float]:
    """What an experiment takes: pictures, and forwards of one row through the transformer, clean runs included."""
    rows = len(prepared.plan.rows())
    wanted = np.ones((rows, len(arms)), bool) if planned is None else planned
    seen: dict[bytes, float] = {}
    total = 0.0
    for row in wanted:
        key = row.tobytes()
        if key not in seen:
            pending = [int(arm) for arm in np.flatnonzero(row)]
            seen[key] = sum(
                _batch_cost(prepared, [arms[n].leaves for n in batch]) for batch in _batches(arms, pending, batch_size)
            )
        total += seen[key] + (len(prepared.schedule.timesteps) if row.any() else 0)
    return {"pictures": float(wanted.sum()), "forwards": total}


def _batch_cost(prepared: Prepared, places: Sequence[Place | None]) -> float:
    """Forwards of one batch of arms: in the step in which some leave, one row is all of theirs, and at last one leaver's."""
    steps, blocks = len(prepared.schedule.timesteps), len(prepared.model.anatomy.blocks)
    leaving = [place for place in places if place is not None]
    total = 0.0
    for step in range(steps):
        total += sum(place[0] < step or (place[0] == step and place[1] < 0) for place in leaving)
        forks = sorted(max(block + part, 0) for begin, block, part in leaving if begin == step and block >= 0)
        total += (1.0 if forks else 0.0) + sum((blocks - fork) / blocks for fork in forks[:-1])
    return total
