"""The edits: frozen dataclasses, each a selection of sites and a change of the values there.

    Zero(channels=29, blocks=4)                              hidden states of the image stream, every step and token
    Scale(1.5, channels="29,54", blocks="2-5", steps="0-9")
    SetMean(channels=29, blocks=4, stream="both")            each sample's mean over its tokens
    Clamp(-1, 1, channels=29, blocks=4, at="alpha.mlp")      the AdaLN gate

They compose, are applied in order, print as written, and are stored with the run.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from interp.base.errors import InputError
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
