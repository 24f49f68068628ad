"""Pairs of pictures with keypoints: of the demo world, whose keypoints are true by construction, or from a file of one's own.

[{"source": "cat-1.png", "target": "cat-2.png", "prompts": ["a photo of a cat", "a photo of a cat"],
"keypoints": [[[120, 88], [131, 240]], ...],     pixels [y, x] in source and target
"box": [210, 180]}]                              of the target's subject, pixels (height, width)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from interp.analysis.correspondence import Pair
from interp.base.errors import InputError
from interp.base.plan import at_least
from interp.models.demo import drawn_pairs as demo

FIELDS = ("source", "target", "prompts", "keypoints", "box")


def demo_pairs(count: int) -> list[Pair]:
    """Pairs of the demo world, always the same."""
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
    """Pairs of a JSON file; pictures are named from its folder."""
    file = Path(path)
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"pairs file {file} does not exist; give a number for the demo model, or a JSON file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"pairs file {file} must be JSON ({error})") from None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"pairs file {file} must hold a list of one pair or more")
    return [_pair(file, number, entry) for number, entry in enumerate(entries)]


def _pair(file: Path, number: int, entry: Any) -> Pair:
    from PIL import Image, UnidentifiedImageError

    lacking = [field for field in FIELDS if not isinstance(entry, dict) or field not in entry]
    if lacking:
        raise InputError(f"pairs file {file}, pair {number}: needs {lacking[0]}; a pair has {', '.join(FIELDS)}")
    try:
        pictures = [np.asarray(Image.open(file.parent / entry[name]).convert("RGB")) for name in ("source", "target")]
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"pairs file {file}, pair {number}: a picture cannot be read ({error})") from None
    if pictures[0].shape != pictures[1].shape:
        raise InputError(f"pairs file {file}, pair {number}: its pictures must be of one size")
    try:
        points = np.array(entry["keypoints"], float).transpose(1, 0, 2)
        first, second = (str(text) for text in entry["prompts"])
        return Pair(np.stack(pictures), (first, second), points, float(max(entry["box"])))
    except InputError as error:
        raise InputError(f"pairs file {file}, pair {number}: {error}") from None
    except (TypeError, ValueError) as error:
        raise InputError(
            f"pairs file {file}, pair {number}: keypoints must be [[[y, x], [y, x]], ...], prompts two texts, box [height, "
            f"width] ({error})"
        ) from None
