"""The demo model's procedural world: pictures with known attributes.

A `Scene` holds all attributes of one picture, of two kinds:

1. *captioned* attributes, which a prompt names: shape, colour, texture, size, position, background;
2. *uncaptioned* detail, which no prompt names: grain, speckle, phase, edge sharpness.

Detail can therefore be lost without contradicting the prompt. Pictures are drawn from signed distances; `noise_seed` is the
only source of randomness, so `scene.picture()` and `scene.mask()` always return the same arrays.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = 64  # pixels, both ways

_DATA: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
COLOURS: dict[str, list[float]] = _DATA["colour"]
BACKGROUNDS: dict[str, list[float]] = _DATA["background"]
SIZES: dict[str, float] = _DATA["size"]
POSITIONS: dict[str, list[float]] = _DATA["position"]
CAPTIONED = ("shape", "colour", "texture", "size", "position", "background")
ATTRIBUTES: dict[str, tuple[str, ...]] = {name: tuple(_DATA[name]) for name in CAPTIONED}
SHAPES, TEXTURES = ATTRIBUTES["shape"], ATTRIBUTES["texture"]
PERIOD = 10.0  # of stripes, dots and checks, pixels


@dataclasses.dataclass(frozen=True)
class Scene:
    """The attributes of one picture. The first six fields are captioned, the others never."""

    shape: str
    colour: str
    texture: str = "plain"
    size: str = "large"
    position: str = "center"
    background: str = "black"
    grain: float = 0.04
    """Standard deviation of a two-pixel noise over the whole picture, in 0..1 units; 0 to 0.08."""
    speckle: float = 0.006
    """Share of two-pixel cells that are bright specks; 0 to 0.02."""
    phase: float = 0.0
    """Shift of the texture, in periods; 0 to 1."""
    softness: float = 1.0
    """Width of the subject's edge, pixels; 0.8 (sharp) to 3.5 (soft)."""
    noise_seed: int = 0
    """Seeds the places of grain and speckle."""

    def __post_init__(self) -> None:
        for field, allowed in ATTRIBUTES.items():
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}; got {value!r}")

    def coverage(self) -> NDArray[np.float64]:
        """How much of each pixel the subject covers: (y, x), 0..1."""
        return np.clip(0.5 - self._distance() / self.softness, 0.0, 1.0)

    def mask(self) -> NDArray[np.bool_]:
        """The subject's pixels: (y, x) boolean."""
        return self._distance() < 0.0

    def picture(self) -> NDArray[np.uint8]:
        """The picture: (y, x, rgb) uint8."""
        noise = np.random.default_rng(self.noise_seed)
        cover = self.coverage()[..., None]
        canvas = np.array(BACKGROUNDS[self.background]) * (1 - cover) + self._subject() * cover
        cells = SIZE // 2
        grain = noise.normal(0.0, self.grain, (cells, cells, 1))
        specks = noise.random((cells, cells, 1)) < self.speckle
        canvas = canvas + np.kron(grain, np.ones((2, 2, 1)))
        canvas = np.where(np.kron(specks, np.ones((2, 2, 1))) > 0, 1.0, canvas)
        return (np.clip(canvas, 0.0, 1.0) * 255.0).round().astype(np.uint8)

    def caption(self, without: frozenset[str] | tuple[str, ...] = (), order: int = 0) -> str:
        """The caption, leaving out the attributes in `without` (never the shape); `order` picks one of two phrasings."""
        said = {name: "" if name in without else getattr(self, name) for name in ATTRIBUTES}
        adjectives = (said["size"], said["colour"], said["texture"], self.shape)
        if order:
            adjectives = (said["texture"], said["size"], said["colour"], self.shape)
        words = ["a", *filter(None, adjectives)]
        if said["position"]:
            words += ["in", "the", said["position"]]
        if said["background"]:
            words += ["on", "a", said["background"], "background"]
        return " ".join(words)

    def _grid(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Pixel offsets (y, x) from the subject's centre, and its radius, pixels."""
        centre_y, centre_x = (fraction * SIZE for fraction in POSITIONS[self.position])
        y, x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
        return y - centre_y, x - centre_x, SIZES[self.size]

    def _distance(self) -> NDArray[np.float64]:
        return np.asarray(signed_distance(self.shape, *self._grid()))

    def _subject(self) -> NDArray[np.float64]:
        """Colour of the subject where it covers: (y, x, rgb). The texture's second tone is darker."""
        y, x, _ = self._grid()
        colour = np.array(COLOURS[self.colour])
        dark = texture_pattern(self.texture, y, x, self.phase)[..., None]
        return colour * (1 - dark) + 0.38 * colour * dark


def signed_distance(shape: str, y: NDArray[np.float64], x: NDArray[np.float64], radius: float) -> Any:
    """Distance to the shape's edge, pixels: negative inside; exact except outside corners."""
    r = np.hypot(y, x)
    if shape == "circle":
        return r - radius
    if shape == "ring":
        return np.abs(r - 0.72 * radius) - 0.28 * radius
    if shape == "square":
        return np.maximum(np.abs(y), np.abs(x)) - 0.88 * radius
    if shape == "cross":
        long, short = radius, 0.36 * radius
        upright = np.maximum(np.abs(y) - long, np.abs(x) - short)
        return np.minimum(upright, np.maximum(np.abs(y) - short, np.abs(x) - long))
    if shape == "triangle":
        return np.maximum(np.abs(x) * np.sqrt(0.75) - y * 0.5, y) - 0.68 * radius
    # star: the five points folded into one half point, whose edge runs from the tip to the notch between two points
    angle = np.mod(np.arctan2(x, -y) + np.pi / 5, 2 * np.pi / 5) - np.pi / 5
    tip, notch = 1.15 * radius, 0.55 * radius
    edge_y, edge_x = notch * np.sin(np.pi / 5), notch * np.cos(np.pi / 5) - tip
    across = (r * np.cos(angle) - tip) * edge_y - np.abs(r * np.sin(angle)) * edge_x
    return across / np.hypot(edge_y, edge_x)


def texture_pattern(texture: str, y: NDArray[np.float64], x: NDArray[np.float64], phase: float) -> NDArray[np.float64]:
    """Where the subject shows its darker tone: (y, x), 0..1."""
    across, along = x / PERIOD + phase, y / PERIOD + phase
    if texture == "plain":
        return np.zeros_like(x)
    if texture == "striped":
        return np.clip(0.5 + 2.0 * np.sin(2 * np.pi * along), 0, 1)
    if texture == "checkered":
        return np.clip(0.5 + 3.0 * np.sin(np.pi * across) * np.sin(np.pi * along), 0, 1)
    centre_distance = np.hypot(np.mod(across, 1) - 0.5, np.mod(along, 1) - 0.5)
    return np.clip((0.36 - centre_distance) * PERIOD, 0, 1)  # dotted


def sample(count: int, seed: int = 0) -> Iterator[Scene]:
    """`count` scenes drawn independently; the same seed gives the same scenes."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        captioned: dict[str, Any] = {name: str(values[draw.integers(len(values))]) for name, values in ATTRIBUTES.items()}
        yield Scene(
            **captioned,
            grain=float(draw.uniform(0.0, 0.08)),
            speckle=float(draw.uniform(0.0, 0.02)),
            phase=float(draw.random()),
            softness=float(draw.uniform(0.8, 3.5)),
            noise_seed=int(draw.integers(2**31)),
        )


def vocabulary() -> list[str]:
    """Every word a caption can hold, sorted."""
    words = {"a", "in", "the", "on", "background"}
    for values in ATTRIBUTES.values():
        words.update(word for value in values for word in value.split())
    return sorted(words)
