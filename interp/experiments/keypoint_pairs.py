"""Pairs of pictures with keypoints, and how well descriptors match them.

Pairs come from the demo world, whose keypoints are exact by construction, or from a JSON file:

[{"source": "cat-1.png", "target": "cat-2.png", "prompts": ["a photo of a cat", "a photo of a cat"],
"keypoints": [[[120, 88], [131, 240]], ...],     pixels [y, x] in source and target
"box": [210, 180]}]                              of the target's subject, pixels (height, width)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import correspondence
from interp.analysis.correspondence import Pair
from interp.base.errors import InputError
from interp.base.site_recorder import at_least
from interp.experiments.clean import Array
from interp.experiments.descriptors import KINDS, Extractor
from interp.models.demo import drawn_pairs as demo

FIELDS = ("source", "target", "prompts", "keypoints", "box")


def demo_pairs(count: int) -> list[Pair]:
    """Pairs of the demo world, the same in every call."""
    return [
        Pair(
            np.stack([one.picture(), other.picture()]),
            (one.caption(), other.caption()),
            np.stack([demo.points(one), demo.points(other)]),
            demo.box(other),
        )
        for one, other in demo.scenes(at_least("pairs", count, 1))
    ]


def read_pairs(path: str | Path) -> list[Pair]:
    """Read pairs from a JSON file; the paths of pictures are relative to its folder."""
    file = Path(path)
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"pairs file {file} does not exist; give a number for the demo model, or a JSON file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"pairs file {file} must be JSON ({error})") from None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"pairs file {file} must hold a list of one pair or more")
    found = []
    for number, entry in enumerate(entries):
        try:
            found.append(_pair(file.parent, entry))
        except InputError as error:
            raise InputError(f"pairs file {file}, pair {number}: {error}") from None
    return found


def _pair(folder: Path, entry: Any) -> Pair:
    from PIL import Image, UnidentifiedImageError

    lacking = [field for field in FIELDS if not isinstance(entry, dict) or field not in entry]
    if lacking:
        raise InputError(f"needs {lacking[0]}; a pair has {', '.join(FIELDS)}")
    try:
        pictures = [np.asarray(Image.open(folder / entry[name]).convert("RGB")) for name in ("source", "target")]
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"a picture cannot be read ({error})") from None
    if pictures[0].shape != pictures[1].shape:
        raise InputError("its pictures must be of one size")
    try:
        points = np.array(entry["keypoints"], float).transpose(1, 0, 2)
        first, second = (str(text) for text in entry["prompts"])
        return Pair(np.stack(pictures), (first, second), points, float(max(entry["box"])))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"keypoints must be [[[y, x], [y, x]], ...], prompts two texts, box [height, width] ({error})"
        ) from None


@dataclasses.dataclass(frozen=True)
class Correspondence:
    """Scores every kind of descriptor on pairs of pictures."""

    extractor: Extractor
    pairs: tuple[Pair, ...]
    texts: tuple[str, ...]
    thresholds: tuple[float, ...]
    protocol: str = "tokens"
    """One of `correspondence.PROTOCOLS`."""
    noises: int = 1
    """Noises whose descriptors are averaged."""

    def measure(self, number: int) -> dict[str, Array]:
        """PCK of one pair: every kind (step, block, threshold), and the controls (threshold)."""
        made, pair, tokens = self.extractor, self.pairs[number], self.extractor.prepared.layout.grid
        size = (pair.pictures.shape[1], pair.pictures.shape[2])
        grid = tokens if self.protocol == "tokens" else size
        described = [
            made.describe(pair.pictures[n], self.texts.index(pair.prompts[n]), 2 * number + n, self.noises) for n in (0, 1)
        ]
        asked = correspondence.token_of(pair.points[0], grid, size)

        def match(ours: Array, theirs: Array) -> Array:
            if self.protocol == "tokens":
                return correspondence.match(ours, theirs, asked)
            return correspondence.match_pixels(ours, theirs, asked, tokens, size)

        found = {kind: np.zeros((len(made.steps), len(made.blocks), len(self.thresholds))) for kind in KINDS}
        for place in np.ndindex(len(made.steps), len(made.blocks)):
            at = made.steps[place[0]], made.blocks[place[1]]
            for kind in KINDS:
                ours, theirs = (np.atleast_3d(one[at][kind].T).T for one in described)  # (draw, token, channel)
                matched = [match(a, b) for a, b in zip(ours, theirs, strict=True)]
                each = [correspondence.correct(pair, predicted, grid, self.thresholds) for predicted in matched]
                found[kind][place] = np.mean(each, axis=0)
        return {**found, **correspondence.controls(pair, grid, self.thresholds)}

    def collect(self, done: Sequence[Mapping[str, Array]]) -> xr.Dataset:
        """PCK over pairs; see `correspondence.summarise`."""
        made = self.extractor
        shares = {kind: np.stack([part[kind] for part in done]) for kind in KINDS}
        controls = {name: np.stack([part[name] for part in done]) for name in correspondence.CONTROLS}
        coordinates = {"step": list(made.steps), "block": list(made.blocks), "threshold": list(self.thresholds)}
        attributes = {
            "model": made.prepared.model.name,
            "weights": made.prepared.plan.weights,
            "channels": list(made.channels),
            "grid": list(made.prepared.layout.grid),
            "pairs": len(self.pairs),
            "protocol": self.protocol,
            "noises": self.noises,
            "seed": made.seed,
        }
        return correspondence.summarise(shares, controls, coordinates, attributes)
