"""Few Channels' disruption probe (arXiv 2605.13974): zero the k largest channels of every block, for growing k.

Controls are the k lowest and k random channels. Every block has its own ranking, by the size of the channel's mean over image
tokens. The paper's term "absolute channel mean" can stand for mean |x| or |mean x|, which rank channels of mixed signs
differently; `by` selects either. The paper gives no k per model, no steps, and no blocks: here all blocks and steps are edited.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from typing_extensions import Doc

from interp import analysis, experiments, interventions
from interp.analysis.table import table
from interp.base.options import Indices, Prompts
from interp.base.sites import check_choice
from interp.experiments.arguments import RankedBy, Reference, channel_counts, pictures_of
from interp.experiments.kind import Figure, Kind, Request, Shown

if TYPE_CHECKING:
    from interp.store.traced_run import Run

ORIGINAL = "original"
KINDS = ("top", "lowest", "random")
BY = ("mean_abs", "abs_mean")
COUNTS = (1, 2, 4, 8, 12, 24)  # up to half of the channels


@dataclasses.dataclass(frozen=True)
class Options:
    """The numbers of channels, and their ranking."""

    prompts: Prompts
    counts: Annotated[Indices, Doc('Numbers of channels, "1,2,8". [default: 1,2,4,8,12,24]')] = None
    by: Annotated[str, Doc("Ranking of channels: mean_abs (mean |x|) or abs_mean (|mean x|) over tokens.")] = "mean_abs"
    run: RankedBy = None
    reference: Reference = None


def design(request: Request) -> experiments.design.Drawing:
    """For every k, zero the k largest, lowest and random channels of every block, in all blocks at once."""
    options: Options = request.options
    real = pictures_of(options.reference)
    prepared = request.prepare(options.prompts)
    check_choice("by", options.by, BY)
    channels, stream = prepared.model.anatomy.channels, prepared.model.anatomy.generated.name
    wanted = channel_counts(options.counts, [k for k in COUNTS if k <= channels // 2], channels)
    opened = experiments.ranking.ranked_run(prepared, request.out, run=options.run, batch_size=request.execution.batch_size)
    orders = block_orders(opened, options.by)
    arms = [experiments.draw.Arm(ORIGINAL, (), {"kind": ORIGINAL, "k": 0, "blocks": "-", "stream": stream})]
    for k in wanted:
        for kind in KINDS:
            chosen = {block: experiments.ranking.pick(order, kind, k, block) for block, order in orders.items()}
            edits = tuple(interventions.Zero(channels=largest, blocks=[block]) for block, largest in chosen.items())
            arms.append(experiments.draw.Arm(f"{kind} {k}", edits, {"kind": kind, "k": k, "blocks": "all", "stream": stream}))
    parameters = {
        "counts": wanted,
        "by": options.by,
        "ranked_by": f"{opened.path.name}: {opened.rows_done} prompts, each block by itself",
        "channels": {str(block): [int(c) for c in order[: wanted[-1]]] for block, order in orders.items()},
    }
    return request.drawing(prepared, arms, parameters, lambda made: {"collapse": analysis.disruption.collapse(made, real)})


def block_orders(run: Run, by: str) -> dict[int, list[int]]:
    """Every block's channels, largest first: by mean |x| or |mean x| over tokens, averaged over steps and prompts."""
    import numpy as np

    here = analysis.sources.statistics(run)["mean_abs" if by == "mean_abs" else "mean"].isel(stream=0)
    size = analysis.sources.over_steps(here if by == "mean_abs" else abs(here)).mean("prompt").transpose("block", "channel")
    order = np.argsort(-size.to_numpy(), axis=1, kind="stable")
    return {int(block): [int(c) for c in row] for block, row in zip(size["block"].to_numpy(), order, strict=True)}


collapse = Kind(
    "collapse",
    "Zero the k largest channels of every block, with the k lowest and k random ones, for growing k.",
    Options,
    design,
    {"collapse": Shown("collapse", table("collapse"))},
    {"collapse": Figure("evaluation.collapse", "collapse")},
    papers=("disruption",),
    controls={"kind": ("random", "lowest")},
)
