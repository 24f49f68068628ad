"""Disruption: the effect on pictures of ablating massive channels, with matched controls.

Detail Guidance, section 4.2 and App. D (arXiv 2510.11538), zeroes them in one block, against random channels. Few Channels
(arXiv 2605.13974) zeroes many channels, against the lowest ones. This experiment does both. Further controls separate the side
effects of zeroing a large channel: an equally large change in other directions (`displaced`), only the change of scale in
LayerNorm (`norms_as_if_zero`), and the ablation without that change (`norms_kept`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp import analysis, experiments, interventions
from interp.analysis.table import table
from interp.base.errors import InputError
from interp.base.options import Channels, Prompts, Stream
from interp.base.site_recorder import at_least
from interp.base.sites import select_indices
from interp.base.streams import GENERATED
from interp.experiments.arguments import RankedBy, Reference, chosen_streams, format_blocks, pictures_of
from interp.experiments.kind import Figure, Kind, Request, Shown

if TYPE_CHECKING:
    from interp.tracing.prepare import Prepared

ORIGINAL = "original"
Condition = tuple[str, int | None, Any, str, dict[str, Any]]
"""(kind, number of the draw, edit, group of channels, further arguments of the edit)."""


@dataclasses.dataclass(frozen=True)
class Options:
    """The channels, blocks and stream to ablate, and the controls."""

    prompts: Prompts
    channels: Channels = None
    run: RankedBy = None
    blocks: Annotated[
        Sequence[Sequence[int] | str | int], Doc('A set of blocks, "4", "2-5" or "all"; repeat the option for more sets.')
    ] = ("all",)
    stream: Stream = GENERATED
    controls: Annotated[int, Doc("Draws of each random control.")] = 3
    reach: Annotated[str, Doc("LayerNorms that the norm controls act on: all (later ones) or next.")] = "all"
    reference: Reference = None


def design(request: Request) -> experiments.design.Drawing:
    """Every arm on every set of blocks; sets are ablated one at a time."""
    options: Options = request.options
    real = pictures_of(options.reference)
    prepared = request.prepare(options.prompts)
    anatomy = prepared.model.anatomy
    count, streams = len(anatomy.blocks), chosen_streams(anatomy, options.stream)
    stream = streams[0] if len(streams) == 1 else options.stream
    sets = [select_indices(None if given == "all" else given, count, "blocks") for given in options.blocks]
    if not sets or len(set(sets)) != len(sets):
        raise InputError(f"blocks must be one or more different sets of blocks; got {list(options.blocks)}")
    ranked = {name: request.rank(prepared, options.channels, name) for name in streams}
    first = ranked[streams[0]]
    half = half_of(prepared) if streams == (anatomy.generated.name,) else None
    draws, norms = at_least("controls", options.controls, 1), prepared.model.anatomy.has_norms
    arms = [experiments.draw.Arm(ORIGINAL, (), _labels(ORIGINAL, "-", stream))]
    for chosen in sets:
        named = format_blocks(chosen, count)
        for kind, repeat, edit, group, further in _conditions(half, draws, options.reach if norms else None):
            where = {"blocks": chosen, **further}
            edits = [edit(channels=one.group(group, repeat or 0), stream=side, **where) for side, one in ranked.items()]
            arm = f"{kind} {named}" if repeat is None else f"{kind} {named} #{repeat}"
            arms.append(experiments.draw.Arm(arm, tuple(edits), _labels(kind, named, stream, repeat or 0)))
    parameters = {
        "channels": first.massive if len(ranked) == 1 else {name: one.massive for name, one in ranked.items()},
        "lowest": first.lowest if len(ranked) == 1 else {name: one.lowest for name, one in ranked.items()},
        "ranked_by": first.source,
        "stream": stream,
        "reach": options.reach,
        **({} if norms else {"norms": "arms left out: these blocks have no LayerNorm without weights of its own"}),
        "half": "left out: it is of the generated stream alone" if half is None else "left half of the picture",
    }
    return request.drawing(prepared, arms, parameters, lambda made: {"disruption": analysis.disruption.measure(made, real)})


def half_of(prepared: Prepared) -> tuple[int, ...]:
    """Image tokens of the left half of the picture, in every frame."""
    rows, columns = prepared.layout.grid
    return prepared.layout.everywhere([y * columns + x for y in range(rows) for x in range(columns // 2)])


def _labels(kind: str, blocks: str, stream: str, repeat: int = 0) -> dict[str, Any]:
    return {"kind": kind, "blocks": blocks, "stream": stream, "repeat": repeat}


def _conditions(half: tuple[int, ...] | None, draws: int, reach: str | None) -> Iterator[Condition]:
    """All conditions of one set of blocks. Without `reach`, the norm controls are left out."""
    yield "zero", None, interventions.Zero, "massive", {}
    yield "mean", None, interventions.SetMean, "massive", {}
    if reach is not None:
        yield "norms_kept", None, interventions.ZeroNormsKept, "massive", {"reach": reach}
        yield "norms_as_if_zero", None, interventions.NormsAsIfZero, "massive", {"reach": reach}
    yield "lowest", None, interventions.Zero, "lowest", {}
    if half:
        yield "half", None, interventions.Zero, "massive", {"tokens": half}
    for repeat in range(draws):
        yield "random", repeat, interventions.Zero, "random", {}
        yield "displaced", repeat, interventions.Displace, "massive", {"seed": repeat}


disrupt = Kind(
    "disrupt",
    "Ablate massive channels, with matched controls, and measure the effect on structure and detail.",
    Options,
    design,
    {
        "measures": Shown("disruption", table("disruption"), per="measure"),
        "wins against the original": Shown("disruption", table("disruption_wins")),
    },
    {"disruption": Figure("effects.disruption", "disruption")},
    papers=("disruption",),
    controls={"kind": ("random", "lowest", "displaced", "norms_as_if_zero")},
)
