"""The edits: frozen dataclasses, each a selection of sites and a change of the values there.

    Zero(channels=29, blocks=4)                              hidden states of the image stream, every step and token
    Scale(1.5, channels="29,54", blocks="2-5", steps="0-9")
    SetMean(channels=29, blocks=4, stream="both")            each sample's mean over its tokens
    Clamp(-1, 1, channels=29, blocks=4, at="alpha.mlp")      the AdaLN gate

They compose, are applied in order, print as written, and are stored with the run.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from interp.base.errors import InputError
from interp.base.sites import Site
from interp.interventions.selection import Selection, Values, check_finite


@dataclasses.dataclass(frozen=True, repr=False)
class Zero(Selection):
    """Set to 0."""

    def change(self, values: Tensor, step: int, block: int) -> Tensor:
        """0 everywhere."""
        return torch.zeros_like(values)


@dataclasses.dataclass(frozen=True, repr=False)
class Scale(Selection):
    """Multiply by a factor."""

    factor: float

    def change(self, values: Tensor, step: int, block: int) -> Tensor:
        """factor * x."""
        return values * self.factor


@dataclasses.dataclass(frozen=True, repr=False)
class Add(Selection):
    """Add a number."""

    amount: float

    def change(self, values: Tensor, step: int, block: int) -> Tensor:
        """x + amount."""
        return values + self.amount


@dataclasses.dataclass(frozen=True, repr=False)
class Clamp(Selection):
    """Clip to low..high; `None` leaves a side open."""

    low: float | None
    high: float | None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [value for value in (self.low, self.high) if value is not None]
        for value in given:
            check_finite("low and high", value)
        if not given or sorted(given) != given:
            raise InputError(f"Clamp needs low <= high, or one of them; got {self.low!r} and {self.high!r}")

    def change(self, values: Tensor, step: int, block: int) -> Tensor:
        """min(max(x, low), high)."""
        return values.clamp(self.low, self.high)


@dataclasses.dataclass(frozen=True, repr=False)
class SetMean(Selection):
    """Set every selected token to a mean: of the sample's own selected tokens, or of a reference run (`values`).

    `values` is (step, block, channel) or (block, channel), such as
    `Values.of(run.stats["mean"].sel(stream="image").mean("prompt"), "mean of run A")`.
    """

    values: Values | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.values is None and not self.is_hidden:
            raise InputError(
                "SetMean without values is a mean over tokens, which a gate does not have; give values, or use Clamp"
            )
        if self.values is not None:
            self.values.check(self, ("step", "block", "channel"))

    def change(self, values: Tensor, step: int, block: int) -> Tensor:
        """The mean, at every token."""
        if self.values is None:
            return values.mean(dim=1, keepdim=True, dtype=torch.float32).to(values.dtype).expand_as(values)
        mean = self.values.at(self, step, block, values)
        return (mean if values.ndim == mean.ndim + 1 else mean.unsqueeze(-2)).expand_as(values)


@dataclasses.dataclass(frozen=True, repr=False)
class Replace(Selection):
    """Replace with values of another run or prompt: (step, block, token, channel) for hidden states, (step, block, channel)
    for gates. `Values.of(run.hidden["image"]["hidden"].sel(prompt=0), "run A, prompt 0")` takes them from a store.
    """

    values: Values

    def __post_init__(self) -> None:
        super().__post_init__()
        self.values.check(self, ("step", "block", "token", "channel") if self.is_hidden else ("step", "block", "channel"))

    def change(self, values: Tensor, step: int, block: int) -> Tensor:
        """The other values."""
        return self.values.at(self, step, block, values).expand_as(values)


@dataclasses.dataclass(frozen=True, repr=False)
class Transport(Selection):
    """Interpolate to another run's values: x + strength (other - x), on the selected channels and tokens.

    With `tokens` a spatial mask, this is Few Channels' injection under the joint channel and spatial mask (arXiv 2605.13974);
    strength 1 replaces, 0 changes nothing.
    """

    values: Values
    strength: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.is_hidden:
            raise InputError("Transport edits hidden states; use Replace or Scale on gates")
        self.values.check(self, ("step", "block", "token", "channel"))

    def change(self, values: Tensor, step: int, block: int) -> Tensor:
        """x + strength (other - x)."""
        return torch.lerp(values, self.values.at(self, step, block, values).expand_as(values), self.strength)


@dataclasses.dataclass(frozen=True, repr=False)
class SteerFrames(Selection):
    """Set a video's first frame, and the ends of its other frames, to a multiple of each channel's largest |x|, sign kept.

    STAS (arXiv 2603.17825; not from our papers), from its abstract alone: it steers massive activations "at first-frame and
    boundary tokens toward a scaled global maximum reference magnitude". That the maximum is each sample's and channel's own,
    over all tokens, that values are set to it, and that a boundary is a row of tokens at each end of a frame are our readings.
    """

    scale: float
    sizes: Any
    """Tokens along the stream's axes: (latent frames, rows, columns)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sizes", read_sizes(self.sizes))
        if not self.is_hidden or self.tokens is not None:
            raise InputError("SteerFrames edits hidden states at tokens that it finds by sizes; leave at and tokens out")

    def apply(self, site: Site, step: int, value: Tensor) -> Tensor:
        """The edited value; the input is unchanged."""
        if value.shape[1] != math.prod(self.sizes):
            raise InputError(f"sizes {list(self.sizes)} of SteerFrames do not fit {value.shape[1]} tokens of {site}")
        wanted = range(value.shape[2]) if self.channels is None else self.channels
        tokens, channels = (torch.tensor(one, device=value.device) for one in (frame_ends(self.sizes), wanted))
        edited, place = value.clone(), (slice(None), tokens[:, None], channels)
        edited[place] = to_maximum(value[place], value[..., channels].abs().amax(dim=1, keepdim=True), self.scale)
        return edited

    def change(self, values: Tensor, step: int, block: int) -> Tensor:
        """Towards the largest of the given tokens."""
        return to_maximum(values, values.abs().amax(dim=1, keepdim=True), self.scale)


def to_maximum(values: Tensor, largest: Tensor, scale: float) -> Tensor:
    """sign(x) scale max |x|, the maximum over all tokens.                        after STAS, arXiv 2603.17825"""
    return values.sign() * (scale * largest)


def frame_ends(sizes: tuple[int, int, int]) -> list[int]:
    """Tokens of the first of the frames, and of the first and last row of every other one."""
    frames, rows, columns = sizes
    size = rows * columns
    ends = {*range(columns), *range(size - columns, size)}
    return [*range(size), *(frame * size + token for frame in range(1, frames) for token in sorted(ends))]


def read_sizes(given: Any) -> tuple[int, int, int]:
    """(latent frames, rows, columns), given as three numbers or as text such as "21x30x52"."""
    parts = given.split("x") if isinstance(given, str) else given
    try:
        frames, rows, columns = (int(part) for part in parts)
        if min(frames, rows, columns) < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(f"sizes must be latent frames, rows and columns of tokens, such as 21x30x52; got {given!r}") from None
    return frames, rows, columns
