"""Disruption: what becomes of pictures when massive channels are taken away, beside every control we know of.

Detail Guidance, section 4.2 and App. D (arXiv 2510.11538): one block, zeroed, against random channels. Few Channels
(arXiv 2605.13974): many channels, against the lowest ones. Here both, and controls for what zeroing a huge channel does
besides: as large a change elsewhere (`displaced`), the change of scale in LayerNorm alone (`norms_as_if_zero`), and the loss
without that change (`norms_kept`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp import analysis, experiments, interventions
from interp.analysis.table import Along, Table, words
from interp.base.errors import InputError
from interp.base.options import Channels, Prompts, Stream
from interp.base.plan import at_least
from interp.base.sites import parse_indices, resolve_indices
from interp.experiments.arguments import STREAMS, RankedBy, Reference, pictures_of, said_blocks
from interp.experiments.kind import Kind, Request
from interp.experiments.shown import Figure, Shown

if TYPE_CHECKING:
    from interp.experiments.design import Drawing
    from interp.experiments.draw import Arm
    from interp.experiments.ranking import Ranked
    from interp.interventions.selection import Selection
    from interp.tracing.prepare import Prepared

ORIGINAL = "original"


@dataclasses.dataclass(frozen=True)
class Options:
    """What is zeroed, and what it is compared with."""

    prompts: Prompts
    channels: Channels = None
    run: RankedBy = None
    blocks: Annotated[
        Sequence[Sequence[int] | str | int], Doc('A set of blocks, "4", "2-5" or "all"; give it again for more.')
    ] = ("all",)
    stream: Stream = "image"
    controls: Annotated[int, Doc("Draws of each random control.")] = 3
    reach: Annotated[str, Doc("LayerNorms that the norm controls act on: all later ones, or the next.")] = "all"
    reference: Reference = None


def design(request: Request) -> Drawing:
    """Every arm on every set of blocks: a set is zeroed by itself."""
    options: Options = request.options
    real = pictures_of(options.reference)
    prepared = request.prepare(options.prompts)
    count, stream = len(prepared.model.anatomy.blocks), options.stream
    sets = [_blocks(given, count) for given in options.blocks]
    if not sets or len(set(sets)) != len(sets):
        raise InputError(f"blocks must be one or more different sets of blocks; got {list(options.blocks)}")
    if stream not in STREAMS:
        raise InputError(f"stream must be one of {', '.join(STREAMS)}; got {stream!r}")
    ranked = {name: request.rank(prepared, options.channels, name) for name in STREAMS[stream]}
    first = ranked[STREAMS[stream][0]]
    half = half_of(prepared) if stream == "image" else None
    draws, norms = at_least("controls", options.controls, 1), prepared.model.anatomy.has_norms
    arms = [experiments.draw.Arm(ORIGINAL, (), _labels(ORIGINAL, "-", stream))]
    for chosen in sets:
        arms += _arms(ranked, chosen, said_blocks(chosen, count), stream, half, draws, options.reach if norms else None)
    parameters = {
        "channels": first.massive if len(ranked) == 1 else {name: one.massive for name, one in ranked.items()},
        "lowest": first.lowest if len(ranked) == 1 else {name: one.lowest for name, one in ranked.items()},
        "ranked_by": first.source,
        "stream": stream,
        "reach": options.reach,
        **({} if norms else {"norms": "arms left out: these blocks have no LayerNorm without weights of its own"}),
        "half": "left out: it is of the image stream alone" if half is None else "left half of the picture",
    }
    return request.drawing(prepared, arms, parameters, lambda made: {"disruption": analysis.disruption.measure(made, real)})


def half_of(prepared: Prepared) -> tuple[int, ...]:
    """Image tokens of the left half of the picture, of every frame."""
    rows, columns = prepared.layout.image_grid
    return prepared.layout.everywhere([y * columns + x for y in range(rows) for x in range(columns // 2)])


def _blocks(given: Any, count: int) -> tuple[int, ...]:
    return resolve_indices(None if given == "all" else parse_indices(given, "blocks"), count, "blocks")


def _labels(kind: str, blocks: str, stream: str, repeat: int = 0) -> dict[str, Any]:
    return {"kind": kind, "blocks": blocks, "stream": stream, "repeat": repeat}


def _arms(
    ranked: Mapping[str, Ranked],
    blocks: tuple[int, ...],
    said: str,
    stream: str,
    half: tuple[int, ...] | None,
    draws: int,
    reach: str | None,
) -> list[Arm]:
    """All arms of one set of blocks; of both streams each with its own channels. Without `reach`, none that holds norms."""

    def edits(make: Callable[[dict[str, Any], Ranked], Selection]) -> tuple[Selection, ...]:
        return tuple(make({"blocks": blocks, "stream": name}, one) for name, one in ranked.items())

    single = {
        "zero": edits(lambda where, one: interventions.Zero(channels=one.massive, **where)),
        "mean": edits(lambda where, one: interventions.SetMean(channels=one.massive, **where)),
    }
    if reach is not None:
        for kind, norm_edit in (("norms_kept", interventions.ZeroNormsKept), ("norms_as_if_zero", interventions.NormsAsIfZero)):
            single[kind] = edits(lambda where, one, make=norm_edit: make(reach=reach, channels=one.massive, **where))  # type: ignore[misc]
    single["lowest"] = edits(lambda where, one: interventions.Zero(channels=one.lowest, **where))
    if half:
        single["half"] = edits(lambda where, one: interventions.Zero(tokens=half, channels=one.massive, **where))
    arms = [experiments.draw.Arm(f"{kind} {said}", given, _labels(kind, said, stream)) for kind, given in single.items()]
    for repeat in range(draws):
        random = edits(lambda where, one, repeat=repeat: interventions.Zero(channels=one.random(repeat), **where))  # type: ignore[misc]
        displaced = edits(lambda where, one, repeat=repeat: interventions.Displace(seed=repeat, channels=one.massive, **where))  # type: ignore[misc]
        for kind, given in (("random", random), ("displaced", displaced)):
            arms.append(experiments.draw.Arm(f"{kind} {said} #{repeat}", given, _labels(kind, said, stream, repeat)))
    return arms


MEASURES = Table(
    ("arm",),
    {
        "arm": words("arm"),
        "energy changed": "changed_energy",
        "{measure}": "value",
        "interval": ("low", "high"),
        "less the random control": "over_control",
        "its interval": ("over_control_low", "over_control_high"),
        "verdict": "verdict",
    },
)
WINS = Table(
    ("arm",),
    {
        "arm": words("arm"),
        "wins": Along("won", {"wins in {}": "win", "{} interval": ("win_low", "win_high")}),
        "difference left": "left",
        "difference right": "right",
    },
)
disrupt = Kind(
    "disrupt",
    "Ablate massive channels, with every matched control, and measure the effect on structure and detail.",
    Options,
    design,
    {"measures": Shown("disruption", MEASURES, per="measure"), "wins against the original": Shown("disruption", WINS)},
    {"disruption": Figure("effects.disruption", "disruption")},
    papers=("disruption",),
    controls={"kind": ("random", "lowest", "displaced", "norms_as_if_zero")},
)
