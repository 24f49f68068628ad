"""Dose and response: how many channels, in how many blocks and steps, until pictures lose detail, and until they fall apart.

The papers zero different amounts: one or two channels in one block (arXiv 2510.11538), many channels in every block
(arXiv 2605.13974). Here both are doses of one design, beside ordinary and lowest channels of the same number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interp.analysis import dose as analysis
from interp.errors import InputError
from interp.executor import HERE, Executor, Stopped
from interp.experiments.choose import Ranked, rank
from interp.experiments.disrupt import said_blocks
from interp.experiments.draw import BATCH_SIZE, Arm, OnProgress, cost, draw
from interp.interventions.edits import Zero
from interp.plan import Record, Row, as_json, at_least
from interp.store.experiment import Experiment
from interp.store.opened import Run
from interp.store.places import located
from interp.store.results import write_result
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

KINDS = ("massive", "random", "lowest")
WINDOWS = ("all", "early", "late")
BUDGET = 2000  # pictures


@dataclasses.dataclass(frozen=True)
class Dose:
    """A dose-response design that is ready to be drawn."""

    prepared: Prepared
    out: Path
    arms: tuple[Arm, ...]
    planned: Any
    """(prompt, arm) booleans."""
    parameters: dict[str, Any]
    ranked: Ranked

    @property
    def cost(self) -> dict[str, float]:
        """Pictures, and forwards of one row."""
        return cost(self.prepared, self.arms, self.planned)

    def run(
        self,
        *,
        reference: Any = None,
        batch_size: int = BATCH_SIZE,
        through: Executor = HERE,
        on_progress: OnProgress = lambda progress: None,
        stopped: Stopped = lambda: False,
    ) -> Experiment:
        """Draw what is missing and keep the result `dose` in the store."""
        drawn = draw(
            self.prepared,
            self.arms,
            experiment="dose",
            parameters=self.parameters,
            out=self.out,
            planned=self.planned,
            bind=_redrawn(self.ranked),
            batch_size=batch_size,
            through=through,
            on_progress=on_progress,
            stopped=stopped,
        )
        write_result(drawn.path, "dose", analysis.response(drawn, reference))
        return drawn


def dose(
    model: Model | str | Path,
    prompts: Sequence[str] | str | Path,
    *,
    out: str | Path,
    counts: Sequence[int] | None = None,
    block: int | None = None,
    windows: Sequence[str] = WINDOWS,
    run: Run | str | Path | None = None,
    budget: int = BUDGET,
    batch_size: int = BATCH_SIZE,
    **arguments: Any,
) -> Dose:
    """Prepare a design of counts x blocks x windows x kinds: `dose(...).run()` draws it.

    `counts` are numbers of channels (by default 1, 2, 4, ... up to a quarter of them); blocks are `block` alone (by default a
    quarter into the model), then a quarter, half and all of them from there; windows are all steps, the first or the last half.
    Where that is more than `budget` pictures, every dose is drawn for a part of the prompts, in turn.
    """
    prepared = prepare(model, prompts, record=Record(stats=False, gates=False), **arguments)
    anatomy, steps = prepared.model.anatomy, len(prepared.schedule.timesteps)
    ranked = rank(prepared, located(out), channels="0", run=run, batch_size=batch_size)
    numbers = _counts(counts, anatomy.channels)
    sets = nested_blocks(len(anatomy.blocks), block)
    wrong = [name for name in windows if name not in WINDOWS]
    if wrong or not windows:
        raise InputError(f"windows must be some of {', '.join(WINDOWS)}; got {wrong[0] if wrong else 'none'!r}")
    if steps < 2 and set(windows) - {"all"}:
        raise InputError(f"windows: {steps} step has no early and late half; use windows=['all'] or more steps")
    spans = {"all": range(steps), "early": range(steps // 2), "late": range(steps // 2, steps)}
    labels = {"kind": "original", "count": 0, "blocks": "-", "block_count": 0, "window": "-"}
    arms = [Arm("original", (), labels)]
    for kind in KINDS:
        for count in numbers:
            for blocks in sets:
                for window in windows:
                    channels = _channels(ranked, kind, count)
                    said = said_blocks(blocks, len(anatomy.blocks))
                    edit = Zero(channels=channels, blocks=blocks, steps=None if window == "all" else tuple(spans[window]))
                    where = {"blocks": said, "block_count": len(blocks), "window": window}
                    name = f"{kind} {count}, blocks {said}, {window} steps"
                    arms.append(Arm(name, (edit,), {"kind": kind, "count": count, **where}))
    doses = (len(arms) - 1) // len(KINDS)
    planned = share_out(prepared.plan.rows(), doses, at_least("budget", budget, 1), prepared.plan.seed)
    parameters = {
        "counts": numbers,
        "windows": list(windows),
        "ranked_by": ranked.source,
        "budget": budget,
        "random": "drawn anew for every row, out of all but the largest",
    }
    return Dose(prepared, located(out), tuple(arms), planned, as_json(parameters, "parameters"), ranked)


def nested_blocks(count: int, first: int | None = None) -> list[tuple[int, ...]]:
    """One block, a quarter, half and all of the blocks, each holding the one before."""
    start = count // 4 if first is None else first
    if not 0 <= start < count:
        raise InputError(f"block must lie in 0..{count - 1}; got {start}")
    found: list[tuple[int, ...]] = []
    for size in (1, max(count // 4, 1), max(count // 2, 1), count):
        begin = min(start, count - size)
        blocks = tuple(range(begin, begin + size))
        if blocks not in found:
            found.append(blocks)
    return found


def share_out(rows: Sequence[Row], doses: int, budget: int, seed: int) -> Any:
    """Which cells are drawn, (prompt, arm): the original (the first arm) of every row, and each dose for as many rows as the
    budget allows: the same rows for the massive channels and their controls, other rows, drawn by lot, for other doses. Rows
    are dealt out like cards: every row has about as many doses as any other, different prompts before further seeds.
    """
    count, kinds = len(rows), len(KINDS)
    each = min(count, (budget - count) // max(doses * kinds, 1))
    if each < min(count, 2):
        needed = count + 2 * doses * kinds
        raise InputError(f"budget must be at least {needed} pictures for {doses} doses of {kinds} kinds; got {budget}")
    lot, deck = np.random.default_rng(seed), list[int]()
    planned = np.zeros((count, 1 + doses * kinds), bool)
    planned[:, 0] = True
    for dose in range(doses):
        hand: list[int] = []
        while len(hand) < each:
            while len(deck) < 2 * count:
                deck += [int(row) for row in lot.permutation(count)]
            texts = {rows[row].text for row in hand}
            free = [row for row in deck if row not in hand]
            chosen = next((row for row in free if rows[row].text not in texts), free[0])
            deck.remove(chosen)
            hand.append(chosen)
        for kind in range(kinds):
            planned[hand, 1 + kind * doses + dose] = True
    return planned


def _counts(given: Sequence[int] | None, channels: int) -> list[int]:
    most = max(channels // 4, 1)
    if given is None:
        found = [2**power for power in range(0, most.bit_length()) if 2**power <= most]
        return found if found[-1] == most else [*found, most]
    numbers = sorted({at_least("counts", number, 1) for number in given})
    if not numbers or numbers[-1] > channels // 2:
        raise InputError(f"counts must lie in 1..{channels // 2}: controls must not be the same channels; got {list(given)}")
    return numbers


def _channels(ranked: Ranked, kind: str, count: int) -> tuple[int, ...]:
    """The `count` largest or lowest; of random ones those of the first row: every row draws its own (`_redrawn`)."""
    if kind == "random":
        return _random(ranked, count, 0)
    chosen = ranked.order[:count] if kind == "massive" else ranked.order[-count:]
    return tuple(sorted(chosen))


def _random(ranked: Ranked, count: int, row: int) -> tuple[int, ...]:
    """Random channels out of all but the largest `count`."""
    drawn = np.random.default_rng([count, row]).choice(ranked.order[count:], count, replace=False)
    return tuple(sorted(int(channel) for channel in drawn))


def _redrawn(ranked: Ranked) -> Any:
    """The arms' edits row by row: random channels anew, so that the draw is in the interval."""

    def bind(row: Row, clean: Any) -> Any:
        def edits_of(arm: Arm) -> Any:
            if arm.labels["kind"] != "random":
                return arm.edits
            edits = [edit for edit in arm.edits if isinstance(edit, Zero)]
            return [dataclasses.replace(edit, channels=_random(ranked, arm.labels["count"], row.index)) for edit in edits]

        return edits_of

    return bind
