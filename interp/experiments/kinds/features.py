"""Descriptors of image tokens with and without massive channels, scored by what corresponds (`experiments.descriptors`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp import experiments
from interp.analysis.table import Along, Table, nothing
from interp.base.errors import InputError
from interp.base.plan import at_least
from interp.experiments.arguments import numbers
from interp.experiments.kind import Kind, Request
from interp.experiments.shown import Figure, Shown

if TYPE_CHECKING:
    from interp.analysis.correspondence import Pair
    from interp.experiments.design import Measuring


@dataclasses.dataclass(frozen=True)
class Options:
    """Pairs of pictures, and what they are described by."""

    pairs: Annotated[
        Sequence[Any] | str | Path, Doc("How many pairs of the demo world; or a JSON file of pairs (docs/features.md).")
    ] = "60"
    channels: Annotated[Sequence[int] | str | None, Doc("Channels to discard. [default: DiTF's, or the catalog's]")] = None
    blocks: Annotated[
        Sequence[int] | str | None, Doc("Blocks whose input is described, 1 or later. [default: DiTF's, or all]")
    ] = None
    steps_at: Annotated[
        Sequence[int] | str | None, Doc("Sampling steps whose noise level is used. [default: the middle one]")
    ] = None
    thresholds: Annotated[Sequence[float] | str, Doc("PCK's, shares of the subject's larger side.")] = (0.1, 0.15, 0.2, 0.3)


def design(request: Request) -> Measuring:
    """A unit for every pair."""
    options, model = request.options, request.model
    pairs = _pairs(options.pairs, model.name)
    at_least("pairs", len(pairs), 1)
    texts = tuple(dict.fromkeys(text for pair in pairs for text in pair.prompts))
    thresholds = tuple(numbers(options.thresholds, "thresholds"))
    made = experiments.descriptors.extractor(
        model,
        texts,
        channels=options.channels if options.channels is not None else experiments.descriptors.default_channels(model),
        blocks=options.blocks if options.blocks is not None else experiments.descriptors.default_blocks(model),
        steps_at=options.steps_at,
        sampling=request.unguided(),
    )
    own = experiments.matching.Correspondence(made, tuple(pairs), texts, thresholds)
    parameters = {
        "pairs": [pair.digest for pair in pairs],
        "channels": made.channels,
        "blocks": made.blocks,
        "steps_at": made.steps,
        "thresholds": thresholds,
    }
    calls = 2 * len(pairs) * (1 + len(made.steps))
    given = {"measure_unit": own.measure, "collect": own.collect, "units": len(pairs), "forwards": float(calls)}
    return request.measuring(made.prepared, parameters, **given)


def _pairs(given: Sequence[Pair] | str | Path, model: str) -> list[Pair]:
    """Pairs of the demo world, of a file, or as they are."""
    if not isinstance(given, str | Path):
        return list(given)
    if not str(given).isdecimal():
        return experiments.keypoint_pairs.read_pairs(given)
    if not model.startswith("demo"):
        raise InputError(f"pairs: the demo world's are for the demo model; give --pairs FILE.json for {model}")
    return experiments.keypoint_pairs.demo_pairs(int(str(given)))


PCK = Table(
    ("kind", "step", "block"),
    {
        "descriptor": "kind",
        "step": "step",
        "block": "block",
        "thresholds": Along("threshold", {"PCK@{}": "pck", "@{}": ("pck_low", "pck_high")}),
    },
)
CONTROLS = Table(
    ("baseline",),
    {
        "descriptor": lambda one: f"none: {one['baseline'].item()}",
        "step": nothing,
        "block": nothing,
        "thresholds": Along("threshold", {"PCK@{}": "beside", "@{}": nothing}),
    },
)
GAINS = Table(
    ("difference", "step", "block", "threshold"),
    {
        "difference": "difference",
        "step": "step",
        "block": "block",
        "threshold": "threshold",
        "PCK": "gain",
        "interval": ("gain_low", "gain_high"),
    },
)


features = Kind(
    "features",
    "Describe image tokens with and without massive channels, and score what corresponds by them (PCK).",
    Options,
    design,
    {"PCK": Shown("features", PCK + CONTROLS), "differences": Shown("features", GAINS)},
    {"pck": Figure("maps.pck", "features")},
)
