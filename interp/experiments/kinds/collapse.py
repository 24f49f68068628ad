"""Few Channels' disruption probe (arXiv 2605.13974): the k largest channels of every block zeroed in all of them, beside the k
lowest and k random ones, for growing k.

Every block has its own ranking, by the size of the channel's mean over image tokens. The paper's words ("absolute channel
mean") can be read as mean |x| or as |mean x|, which rank channels of mixed signs differently: `by` takes either. The paper
says neither k for each model, nor steps, nor whether blocks are zeroed one by one: here all blocks and steps at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from typing_extensions import Doc

from interp import analysis, experiments, interventions
from interp.analysis.table import Table, words
from interp.base.errors import InputError
from interp.base.options import Prompts
from interp.base.plan import at_least
from interp.base.sites import parse_indices
from interp.experiments.arguments import RankedBy, Reference, pictures_of
from interp.experiments.kind import Kind, Request
from interp.experiments.shown import Figure, Shown

if TYPE_CHECKING:
    from interp.experiments.design import Drawing
    from interp.store.traced_run import Run

ORIGINAL = "original"
KINDS = ("top", "lowest", "random")
BY = ("mean_abs", "abs_mean")
COUNTS = (1, 2, 4, 8, 12, 24)  # as far as half of the channels go


@dataclasses.dataclass(frozen=True)
class Options:
    """How many channels, and how they are ranked."""

    prompts: Prompts
    counts: Annotated[Sequence[int] | str | None, Doc('Numbers of channels, "1,2,8". [default: 1,2,4,8,12,24]')] = None
    by: Annotated[str, Doc("What ranks channels: mean_abs (mean |x|) or abs_mean (|mean x|) over tokens.")] = "mean_abs"
    run: RankedBy = None
    reference: Reference = None


def design(request: Request) -> Drawing:
    """For every k, the k largest, lowest and random channels of every block, zeroed in all blocks."""
    options: Options = request.options
    real = pictures_of(options.reference)
    prepared = request.prepare(options.prompts)
    channels, counts = prepared.model.anatomy.channels, parse_indices(options.counts, "counts")
    if options.by not in BY:
        raise InputError(f"by must be one of {', '.join(BY)}; got {options.by!r}")
    wanted = [k for k in COUNTS if k <= channels // 2] if counts is None else sorted({at_least("counts", k, 1) for k in counts})
    if not wanted or wanted[-1] > channels // 2:
        raise InputError(f"counts must lie in 1..{channels // 2}: the lowest must not be the top ones; got {counts}")
    opened = experiments.ranking.ranked_run(prepared, request.out, run=options.run, batch_size=request.execution.batch_size)
    orders = block_orders(opened, options.by)
    arms = [experiments.draw.Arm(ORIGINAL, (), {"kind": ORIGINAL, "k": 0, "blocks": "-", "stream": "image"})]
    for k in wanted:
        for kind in KINDS:
            edits = tuple(
                interventions.Zero(channels=_chosen(order, kind, k, block), blocks=[block]) for block, order in orders.items()
            )
            arms.append(experiments.draw.Arm(f"{kind} {k}", edits, {"kind": kind, "k": k, "blocks": "all", "stream": "image"}))
    parameters = {
        "counts": wanted,
        "by": options.by,
        "ranked_by": f"{opened.path.name}: {opened.rows_done} prompts, each block by itself",
        "channels": {str(block): [int(c) for c in order[: wanted[-1]]] for block, order in orders.items()},
    }
    return request.drawing(prepared, arms, parameters, lambda made: {"collapse": analysis.dose_response.collapse(made, real)})


def block_orders(run: Run, by: str) -> dict[int, list[int]]:
    """Every block's channels, the largest first: by mean |x| over tokens, or by |mean x|, averaged over steps and prompts."""
    import numpy as np

    here = analysis.sources.statistics(run)["mean_abs" if by == "mean_abs" else "mean"].sel(stream="image")
    size = analysis.sources.over_steps(here if by == "mean_abs" else abs(here)).mean("prompt").transpose("block", "channel")
    order = np.argsort(-size.to_numpy(), axis=1, kind="stable")
    return {int(block): [int(c) for c in row] for block, row in zip(size["block"].to_numpy(), order, strict=True)}


def _chosen(order: Sequence[int], kind: str, k: int, block: int) -> list[int]:
    """Channels of a kind; random ones are drawn for every block anew, out of all but the top ones."""
    import numpy as np

    if kind == "random":
        return sorted(int(c) for c in np.random.default_rng([k, block]).choice(order[k:], k, replace=False))
    return sorted(order[:k] if kind == "top" else order[-k:])


TABLE = Table(
    ("measure", "kind", "k"),
    {
        "measure": words("measure"),
        "channels": lambda one: f"{one['kind'].item()} {one['k'].item()}",
        "value": "value",
        "interval": ("low", "high"),
        "less the lowest": "over_lowest",
        "its interval": ("over_lowest_low", "over_lowest_high"),
        "energy changed": "changed_energy",
    },
)
collapse = Kind(
    "collapse",
    "Zero the k largest channels of every block, with the k lowest and k random ones, for growing k.",
    Options,
    design,
    {"collapse": Shown("collapse", TABLE)},
    {"collapse": Figure("evaluation.collapse", "collapse")},
    papers=("disruption",),
    controls={"kind": ("random", "lowest")},
)
