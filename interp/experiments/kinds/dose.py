"""Dose and response: zero channels x blocks x steps, from the dose that removes detail to the dose that destroys pictures.

The papers zero different amounts: one or two channels in one block (arXiv 2510.11538), many channels in every block
(arXiv 2605.13974). Here both are doses of one design. Controls are the same number of random ordinary and of lowest channels.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from typing_extensions import Doc

from interp import analysis, experiments, interventions
from interp.analysis.table import table
from interp.base.errors import InputError
from interp.base.options import Indices, Names, Prompts
from interp.base.plan import Row
from interp.base.site_recorder import at_least
from interp.experiments.arguments import RankedBy, Reference, channel_counts, format_blocks, listed, pictures_of
from interp.experiments.kind import Figure, Kind, Request, Shown

KINDS = ("massive", "random", "lowest")
WINDOWS = ("all", "early", "late")


@dataclasses.dataclass(frozen=True)
class Options:
    """The doses: counts of channels x sets of blocks x windows of steps.

    The sets of blocks are one block, then a quarter, half and all of the blocks. Windows are all steps, the first or the last
    half.
    """

    prompts: Prompts
    counts: Annotated[Indices, Doc('Numbers of channels, "1,2,8". [default: 1, 2, 4, ... a quarter]')] = None
    block: Annotated[int | None, Doc("The block of the smallest dose. [default: at a quarter of the depth]")] = None
    windows: Annotated[Names, Doc("Steps: any of all,early,late.")] = WINDOWS
    budget: Annotated[int, Doc("Maximum number of pictures; beyond it, every dose is drawn for a part of the samples.")] = 2000
    run: RankedBy = None
    reference: Reference = None


def design(request: Request) -> experiments.design.Drawing:
    """Every dose of massive, random and lowest channels; beyond the budget, each for a part of the samples."""
    options: Options = request.options
    real = pictures_of(options.reference)
    prepared = request.prepare(options.prompts)
    anatomy, steps = prepared.model.anatomy, len(prepared.schedule.timesteps)
    windows = listed(options.windows, "windows", WINDOWS)
    quarter = max(anatomy.channels // 4, 1)
    doubled = {*(2**power for power in range(quarter.bit_length())), quarter}
    counts = channel_counts(options.counts, doubled, anatomy.channels)
    ranked = request.rank(prepared, "0")
    sets = nested_blocks(len(anatomy.blocks), options.block)
    if steps < 2 and set(windows) - {"all"}:
        raise InputError(f"windows: {steps} step has no early and late half; use windows=['all'] or more steps")
    spans = {"all": None, "early": tuple(range(steps // 2)), "late": tuple(range(steps // 2, steps))}
    labels = {"kind": "original", "count": 0, "blocks": "-", "block_count": 0, "window": "-"}
    arms = [experiments.draw.Arm("original", (), labels)]
    for kind, count, blocks, window in itertools.product(KINDS, counts, sets, windows):
        channels = experiments.ranking.pick(ranked.order, kind, count, 0)  # `_redrawn` replaces random ones
        edit = interventions.Zero(channels=channels, blocks=blocks, steps=spans[window])
        named = format_blocks(blocks, len(anatomy.blocks))
        labels = {"kind": kind, "count": count, "blocks": named, "block_count": len(blocks), "window": window}
        arms.append(experiments.draw.Arm(f"{kind} {count}, blocks {named}, {window} steps", (edit,), labels))
    doses = (len(arms) - 1) // len(KINDS)
    planned = share_out(prepared.plan.rows(), doses, at_least("budget", options.budget, 1), prepared.plan.seed)
    parameters = {
        "counts": counts,
        "windows": windows,
        "ranked_by": ranked.source,
        "budget": options.budget,
        "random": "drawn anew for every row, out of all but the largest",
    }
    measure = lambda made: {"dose": analysis.disruption.response(made, real)}  # noqa: E731
    return request.drawing(
        prepared, arms, parameters, measure, bind=lambda row, clean: partial(_redrawn, ranked.order, row), planned=planned
    )


def nested_blocks(count: int, first: int | None = None) -> list[tuple[int, ...]]:
    """One block, a quarter, half and all of the blocks; each set contains the one before."""
    start = count // 4 if first is None else first
    if not 0 <= start < count:
        raise InputError(f"block must lie in 0..{count - 1}; got {start}")
    sizes = (1, max(count // 4, 1), max(count // 2, 1), count)
    begins = [min(start, count - size) for size in sizes]
    return list(dict.fromkeys(tuple(range(begin, begin + size)) for begin, size in zip(begins, sizes, strict=True)))


def share_out(rows: Sequence[Row], doses: int, budget: int, seed: int) -> Any:
    """Which cells to draw, (prompt, arm) booleans, within a budget of pictures.

    The original (the first arm) is drawn for every sample. Each dose is drawn for an equal number of random samples, the same
    ones for the massive channels and their controls. Samples have about equally many doses. A dose uses different prompts
    before it uses further seeds of one prompt.
    """
    import numpy as np

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


def _redrawn(order: Sequence[int], row: Row, arm: experiments.draw.Arm) -> Any:
    """An arm's edits, with other random channels for every sample, so that intervals include the variation of the draw."""
    if arm.labels["kind"] != "random":
        return arm.edits
    channels = experiments.ranking.pick(order, "random", arm.labels["count"], row.index)
    return [dataclasses.replace(edit, channels=channels) for edit in arm.edits if isinstance(edit, interventions.Zero)]


dose = Kind(
    "dose",
    "Measure the dose-response of zeroing channels x blocks x steps, massive channels against controls.",
    Options,
    design,
    {"dose and response": Shown("dose", table("dose"))},
    {"dose": Figure("effects.dose", "dose")},
    papers=("disruption",),
    controls={"kind": ("random", "lowest")},
)
