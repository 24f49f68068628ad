"""Descriptors of image tokens with and without massive channels, scored by the keypoints that they match."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import Doc

from interp import analysis, experiments
from interp.analysis.table import table
from interp.base.errors import InputError
from interp.base.options import Indices, Numbers
from interp.base.site_recorder import at_least
from interp.base.sites import check_choice
from interp.experiments.arguments import numbers
from interp.experiments.kind import Figure, Kind, Request, Shown


@dataclasses.dataclass(frozen=True)
class Options:
    """The pairs of pictures, and the states that describe them."""

    pairs: Annotated[
        Sequence[Any] | str | Path, Doc("Number of pairs of the demo world, or a JSON file of pairs (docs/features.md).")
    ] = "60"
    channels: Annotated[Indices, Doc("Channels to discard. [default: DiTF's, or the catalog's]")] = None
    blocks: Annotated[Indices, Doc("Blocks that receive the described states. [default: DiTF's, or all but the first]")] = None
    steps_at: Annotated[Indices, Doc("Sampling steps that give the noise levels. [default: the middle one]")] = None
    protocol: Annotated[str, Doc("ditf (at pixels, mean of 8 noises; the published one) or tokens (at tokens, one noise).")] = (
        "ditf"
    )
    noises: Annotated[int | None, Doc("Noises whose descriptors are averaged. [default: the protocol's]")] = None
    thresholds: Annotated[Numbers, Doc("Thresholds of PCK, shares of the subject's larger side.")] = (0.1, 0.15, 0.2, 0.3)


def design(request: Request) -> experiments.design.Measuring:
    """One unit per pair."""
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
    check_choice("protocol", options.protocol, analysis.correspondence.PROTOCOLS)
    usual = analysis.correspondence.PROTOCOLS[options.protocol]
    noises = usual if options.noises is None else at_least("noises", options.noises, 1)
    own = experiments.keypoint_pairs.Correspondence(made, tuple(pairs), texts, thresholds, options.protocol, noises)
    measured = {"protocol": options.protocol, "noises": noises}
    parameters = {
        "pairs": [pair.digest for pair in pairs],
        "channels": made.channels,
        "blocks": made.blocks,
        "steps_at": made.steps,
        "thresholds": thresholds,
        **(measured if measured != {"protocol": "tokens", "noises": 1} else {}),  # as stores before there was a choice
    }
    calls = 2 * len(pairs) * (1 + noises * len(made.steps))
    given = {"measure_unit": own.measure, "collect": own.collect, "units": len(pairs), "forwards": float(calls)}
    return request.measuring(made.prepared, parameters, **given)


def _pairs(given: Sequence[Any] | str | Path, model: str) -> list[analysis.correspondence.Pair]:
    """Pairs of the demo world, of a file, or as given."""
    if not isinstance(given, str | Path):
        return list(given)
    if not str(given).isdecimal():
        return experiments.keypoint_pairs.read_pairs(given)
    if not model.startswith("demo"):
        raise InputError(f"pairs: pairs of the demo world need the demo model; give --pairs FILE.json for {model}")
    return experiments.keypoint_pairs.demo_pairs(int(str(given)))


features = Kind(
    "features",
    "Match keypoints by image tokens with and without massive channels, and score the matches (PCK).",
    Options,
    design,
    {"PCK": Shown("features", table("descriptors")), "differences": Shown("features", table("descriptor_gains"))},
    {"pck": Figure("maps.pck", "features")},
)
