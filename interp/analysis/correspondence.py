"""Semantic correspondence by descriptors of image tokens, scored by PCK: numpy alone.

A keypoint of the source is matched to the target's place of the most similar descriptor (cosine). PCK at t is the share of
keypoints predicted within t times the larger side of the target subject's bounding box (SPair-71k, arXiv 1908.10543). Places
are pixels, to which descriptors are interpolated (DIFT's protocol, arXiv 2306.03881, which DiTF uses), or tokens.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis.result import Estimate, result
from interp.analysis.sampled import Sampled
from interp.base.errors import InputError
from interp.store.schema import Array

PROTOCOLS = {"ditf": 8, "tokens": 1}
"""Noises whose descriptors are averaged, by protocol: at pixels, PCK as DiTF (arXiv 2505.18584) measures it; at tokens."""
THRESHOLDS = (0.1, 0.15, 0.2, 0.3)
CONTROLS = ("oracle", "chance", "same place")
GAINS = {
    "raw": ("raw_discard", "raw"),
    "raw control": ("raw_control", "raw"),
    "adaln": ("adaln", "raw"),
    "discard": ("adaln_discard", "adaln"),
    "control": ("adaln_control", "adaln"),
}
"""Differences of kinds: with AdaLN, with massive channels discarded, with as many others discarded."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two pictures of the same kind of thing, and points of it that are the same in both."""

    pictures: Array
    """(2, y, x, rgb) uint8: source and target."""
    prompts: tuple[str, str]
    points: Array
    """(2, keypoint, 2): pixels (y, x) in source and target."""
    box: float
    """The larger side of the target subject's bounding box, pixels."""

    def __post_init__(self) -> None:
        size = np.array(self.pictures.shape[1:3])
        if self.points.ndim != 3 or self.points.shape[0] != 2 or self.points.shape[2] != 2 or not self.points.shape[1]:
            raise InputError(f"keypoints must be (2, keypoint, 2), one or more; got shape {self.points.shape}")
        if (self.points < 0).any() or (self.points >= size).any():
            raise InputError(f"keypoints must lie inside the picture, 0..{size[0] - 1} down and 0..{size[1] - 1} across")
        if not self.box > 0:
            raise InputError(f"box must be above 0 pixels; got {self.box}")

    @property
    def digest(self) -> str:
        """A hash that identifies the pair."""
        parts = (self.pictures, self.points, np.array(self.box))
        held = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
        return hashlib.sha256(held + "\n".join(self.prompts).encode()).hexdigest()[:16]


def token_of(points: Array, grid: tuple[int, int], size: tuple[int, int]) -> Array:
    """The token whose cell holds each point: (keypoint) of pixels (keypoint, 2)."""
    cells = (np.asarray(points) * np.array(grid) / np.array(size)).astype(int)
    return np.asarray(cells[:, 0] * grid[1] + cells[:, 1])


def centres(grid: tuple[int, int], size: tuple[int, int]) -> Array:
    """Pixels (token, 2) of the tokens' centres."""
    y, x = np.mgrid[: grid[0], : grid[1]]
    cells = np.stack([y.ravel(), x.ravel()], axis=1)
    return np.asarray((cells + 0.5) * np.array(size) / np.array(grid))


def match(source: Array, target: Array, tokens: Sequence[int] | Array) -> Array:
    """For source tokens, the target tokens of the most similar descriptors, both (token, channel)."""
    one, other = (values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12) for values in (source, target))
    return np.asarray((one[np.asarray(tokens)] @ other.T).argmax(axis=1))


def match_pixels(source: Array, target: Array, pixels: Array, grid: tuple[int, int], size: tuple[int, int]) -> Array:
    """For source pixels (keypoint), the target pixels of the most similar descriptors, interpolated from (token, channel).

    Interpolation is bilinear between the tokens' centres, as torch's with align_corners=False. Pixels are numbered by rows.
    """
    down, across = (_interpolation(n, m) for n, m in zip(grid, size, strict=True))
    ours, theirs = (values.reshape(*grid, -1) for values in (source, target))
    wanted = np.stack(
        [down[y] @ np.tensordot(across[x], ours, (0, 1)) for y, x in zip(*np.divmod(pixels, size[1]), strict=True)]
    )
    best, place = np.full(len(wanted), -np.inf), np.zeros(len(wanted), int)
    for row in range(size[0]):  # a row of pixels at a time: all of a large picture would not fit
        here = across @ np.tensordot(down[row], theirs, 1)
        alike = wanted @ (here / np.maximum(np.linalg.norm(here, axis=1, keepdims=True), 1e-12)).T
        found = alike.argmax(axis=1)
        better = (top := alike[np.arange(len(wanted)), found]) > best
        best[better], place[better] = top[better], row * size[1] + found[better]
    return place


def _interpolation(tokens: int, pixels: int) -> Array:
    """Weights (pixel, token) of linear interpolation between the tokens' centres."""
    at = np.clip((np.arange(pixels) + 0.5) * tokens / pixels - 0.5, 0, tokens - 1)
    return np.asarray(np.maximum(1 - np.abs(at[:, None] - np.arange(tokens)), 0.0))


def correct(pair: Pair, predicted: Array, grid: tuple[int, int], thresholds: Sequence[float] = THRESHOLDS) -> Array:
    """Share of the keypoints whose predicted place of this grid, (keypoint), is near enough: (threshold)."""
    size = pair.pictures.shape[1:3]
    away = np.linalg.norm(centres(grid, size)[predicted] - pair.points[1], axis=1)
    return np.array([(away <= threshold * pair.box).mean() for threshold in thresholds])


def controls(pair: Pair, grid: tuple[int, int], thresholds: Sequence[float] = THRESHOLDS) -> dict[str, Array]:
    """The best share on this grid (each keypoint's own place), the expectation of a random place, and the share for the
    source's own place, which descriptors of position alone would predict: (threshold).
    """
    size = pair.pictures.shape[1:3]
    away = np.stack([np.linalg.norm(centres(grid, size) - point, axis=1) for point in pair.points[1]])
    chance = np.array([(away <= threshold * pair.box).mean() for threshold in thresholds])
    stays, best = (correct(pair, token_of(points, grid, size), grid, thresholds) for points in pair.points)
    return {"oracle": best, "chance": chance, "same place": stays}


def summarise(
    shares: Mapping[str, Array], beside: Mapping[str, Array], coordinates: Mapping[str, Any], attributes: Mapping[str, Any]
) -> xr.Dataset:
    """PCK of every kind, with intervals over pairs.

    `shares` are (pair, step, block, threshold) by kind; `beside` the controls' (pair, threshold).

    pck, pck_low, pck_high      (kind, step, block, threshold)   mean over pairs
    gain, gain_low, gain_high   (difference, step, block, threshold)   paired differences of kinds: `GAINS`
    beside                      (baseline, threshold)            oracle, chance, same place
    """
    gains = {name: (one, other) for name, (one, other) in GAINS.items() if one in shares and other in shares}
    each = np.stack(list(shares.values()), axis=1)
    over = np.stack([shares[one] - shares[other] for one, other in gains.values()], axis=1)
    axes, units = ("step", "block", "threshold"), Sampled.single(len(each))
    return result(
        "correspondence",
        {
            "pck": (("kind", *axes), Estimate.share(each, units)),
            "gain": (("difference", *axes), Estimate.mean(over, units)),
            "beside": (("baseline", "threshold"), np.array([beside[name].mean(axis=0) for name in CONTROLS])),
        },
        {
            "kind": list(shares),
            "difference": [f"{one} less {other}" for one, other in gains.values()],
            "baseline": CONTROLS,
            **coordinates,
        },
        averaged_over="keypoints, then pairs",
        interval=f"pck: Wilson; gain: {units.said()}".replace("prompt texts", "pairs"),
        control="as many random ordinary channels discarded; the grid's best; a random place; the source's own place",
        **attributes,
    )
