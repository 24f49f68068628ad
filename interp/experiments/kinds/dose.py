"""Dose and response: how many channels, in how many blocks and steps, until pictures lose detail, and until they fall apart.

The papers zero different amounts: one or two channels in one block (arXiv 2510.11538), many channels in every block
(arXiv 2605.13974). Here both are doses of one design, beside ordinary and lowest channels of the same number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp import analysis, experiments, interventions
from interp.analysis.table import Along, Table
from interp.base.errors import InputError
from interp.base.options import Prompts
from interp.base.plan import Row, at_least
from interp.base.sites import parse_indices
from interp.experiments.arguments import RankedBy, Reference, listed, pictures_of, said_blocks
from interp.experiments.kind import Kind, Request
from interp.experiments.shown import Figure, Shown

if TYPE_CHECKING:
    from interp.experiments.design import Drawing
    from interp.experiments.draw import Arm
    from interp.experiments.ranking import Ranked

KINDS = ("massive", "random", "lowest")
WINDOWS = ("all", "early", "late")


@dataclasses.dataclass(frozen=True)
class Options:
    """The doses: counts of channels x blocks x windows of steps. Blocks are one block, then a quarter, half and all of them
    from there; windows are all steps, the first or the last half.
    """

    prompts: Prompts
    counts: Annotated[Sequence[int] | str | None, Doc('Numbers of channels, "1,2,8". [default: 1, 2, 4, ... a quarter]')] = None
    block: Annotated[int | None, Doc("The block of the smallest dose. [default: a quarter into the model]")] = None
    windows: Annotated[Sequence[str] | str, Doc("Steps: any of all,early,late.")] = WINDOWS
    budget: Annotated[int, Doc("Pictures at most; beyond, every dose is drawn for a part of the prompts.")] = 2000
    run: RankedBy = None
    reference: Reference = None


def design(request: Request) -> Drawing:
    """Every dose of massive, random and lowest channels; beyond the budget, each for a part of the prompts, in turn."""
    options: Options = request.options
    real = pictures_of(options.reference)
    prepared = request.prepare(options.prompts)
    anatomy, steps = prepared.model.anatomy, len(prepared.schedule.timesteps)
    counts, windows = parse_indices(options.counts, "counts"), listed(options.windows, "windows", WINDOWS)
    ranked = request.rank(prepared, "0")
    counted = _counts(counts, anatomy.channels)
    sets = nested_blocks(len(anatomy.blocks), options.block)
    if steps < 2 and set(windows) - {"all"}:
        raise InputError(f"windows: {steps} step has no early and late half; use windows=['all'] or more steps")
    labels = {"kind": "original", "count": 0, "blocks": "-", "block_count": 0, "window": "-"}
    arms = [experiments.draw.Arm("original", (), labels)]
    arms += [
        _arm(ranked, kind, count, blocks, window, steps, len(anatomy.blocks))
        for kind in KINDS
        for count in counted
        for blocks in sets
        for window in windows
    ]
    doses = (len(arms) - 1) // len(KINDS)
    planned = share_out(prepared.plan.rows(), doses, at_least("budget", options.budget, 1), prepared.plan.seed)
    parameters = {
        "counts": counted,
        "windows": windows,
        "ranked_by": ranked.source,
        "budget": options.budget,
        "random": "drawn anew for every row, out of all but the largest",
    }
    measure = lambda made: {"dose": analysis.dose_response.response(made, real)}  # noqa: E731
    return request.drawing(prepared, arms, parameters, measure, bind=_redrawn(ranked), planned=planned)


def _arm(ranked: Ranked, kind: str, count: int, blocks: tuple[int, ...], window: str, steps: int, of_blocks: int) -> Arm:
    """One dose."""
    spans = {"early": range(steps // 2), "late": range(steps // 2, steps)}
    said = said_blocks(blocks, of_blocks)
    chosen = None if window == "all" else tuple(spans[window])
    edit = interventions.Zero(channels=_channels(ranked, kind, count), blocks=blocks, steps=chosen)
    labels = {"kind": kind, "count": count, "blocks": said, "block_count": len(blocks), "window": window}
    return experiments.draw.Arm(f"{kind} {count}, blocks {said}, {window} steps", (edit,), labels)


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
    import numpy as np

    drawn = np.random.default_rng([count, row]).choice(ranked.order[count:], count, replace=False)
    return tuple(sorted(int(channel) for channel in drawn))


def _redrawn(ranked: Ranked) -> Any:
    """The arms' edits row by row: random channels anew, so that the draw is in the interval."""

    def bind(row: Row, clean: Any) -> Any:
        def edits_of(arm: Arm) -> Any:
            if arm.labels["kind"] != "random":
                return arm.edits
            edits = [edit for edit in arm.edits if isinstance(edit, interventions.Zero)]
            return [dataclasses.replace(edit, channels=_random(ranked, arm.labels["count"], row.index)) for edit in edits]

        return edits_of

    return bind


TABLE = Table(
    ("dose",),
    {
        "zeroed": "dose",
        "amount": "amount",
        "measures": Along("measure", {"{}": "value", "{} interval": ("low", "high"), "{} less control": "over_control"}),
        "outcome": "outcome",
        "prompts": "prompts",
    },
)
dose = Kind(
    "dose",
    "Dose-response: channels x blocks x steps zeroed, massive against controls; where each paper's claim holds.",
    Options,
    design,
    {"dose and response": Shown("dose", TABLE)},
    {"dose": Figure("effects.dose", "dose")},
    papers=("disruption",),
    controls={"kind": ("random", "lowest")},
)
