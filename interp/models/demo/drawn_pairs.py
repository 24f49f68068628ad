"""Pairs of demo-world pictures with known keypoints: the same shape and texture, everything else drawn independently.

A keypoint is a position on the shape in units of its radius, the same in both pictures by construction. Points of a circle or a
ring differ only in their position about the centre.
"""

from __future__ import annotations

import numpy as np

from interp.models.demo import world
from interp.store.schema import Array

SEED = 777_001  # neither the model's training nor the judge's


def _around(radius: float, count: int, first: float = 0.0) -> list[tuple[float, float]]:
    """Points (y, x) on a circle, clockwise from the top."""
    angles = first + 2 * np.pi * np.arange(count) / count
    return [(float(-radius * np.cos(a)), float(radius * np.sin(a))) for a in angles]


CENTRE = (0.0, 0.0)
KEYPOINTS: dict[str, tuple[tuple[float, float], ...]] = {
    "circle": (CENTRE, *_around(0.8, 4)),
    "ring": tuple(_around(0.72, 4)),
    "square": (CENTRE, *_around(1.0, 4, np.pi / 4)),
    "cross": (CENTRE, *_around(0.8, 4)),
    "star": (CENTRE, *_around(0.9, 5)),
    "triangle": (CENTRE, (-1.0, 0.0), (0.5, 0.8), (0.5, -0.8)),
}


def points(scene: world.Scene) -> Array:
    """The shape's keypoints in this picture: pixels (keypoint, 2), (y, x)."""
    centre = np.array(world.POSITIONS[scene.position]) * world.SIZE
    return np.asarray(centre + world.SIZES[scene.size] * np.array(KEYPOINTS[scene.shape]))


def box(scene: world.Scene) -> float:
    """The larger side of the subject's bounding box, pixels."""
    rows, columns = np.nonzero(scene.mask())
    return float(max(np.ptp(rows), np.ptp(columns)) + 1)


def scenes(count: int, seed: int = SEED) -> list[tuple[world.Scene, world.Scene]]:
    """`count` pairs of scenes of one shape and texture; positions or sizes differ in each."""
    found: list[tuple[world.Scene, world.Scene]] = []
    drawn = list(world.sample(40 * count + 400, seed))
    while len(found) < count and drawn:
        one = drawn.pop(0)
        for place, other in enumerate(drawn):
            same = (one.shape, one.texture) == (other.shape, other.texture)
            if same and (one.position, one.size) != (other.position, other.size):
                found.append((one, drawn.pop(place)))
                break
    return found
