"""Controls for zeroing massive channels: they separate the loss of the channels from its side effects.

    Displace(channels=29, blocks=4, seed=3)    as large a change, along a random direction of the other channels
    ZeroNormsKept(channels=29, blocks=4)       the channels are 0; later LayerNorms use the statistics with them
    NormsAsIfZero(channels=29, blocks=4)       the channels stay; later LayerNorms use the statistics without them

A massive channel dominates the standard deviation by which LayerNorm divides all channels: zeroing it removes its content *and*
enlarges every other channel. The last two edits separate these effects. A value removed at a block counts as removed in every
later LayerNorm of the stream (the stream is a sum), or in the next one only (`reach="next"`).
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from interp.base.errors import InputError, ModelError
from interp.base.sites import Site
from interp.interventions.edits import Zero
from interp.interventions.selection import Selection, Values
from interp.models.anatomy import Lengths, Norm

REACHES = ("all", "next")


@dataclasses.dataclass(frozen=True, repr=False)
class Displace(Selection):
    """Keep the channels and move every selected token along one random direction of the other channels, by the distance that
    zeroing would move it: x + |x_channels| r with |r| = 1, r_channels = 0. The direction is drawn from `seed`. Later blocks add
    only the growth of |x_channels|, as zeroing removes each value once.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.is_hidden or self.channels is None:
            raise InputError(
                "Displace needs channels of hidden states: their norm is the distance; give channels and leave out at"
            )

    def apply(self, site: Site, step: int, value: Tensor) -> Tensor:
        """The displaced state, (batch, token, channel), as at the first edited block."""
        return self.apply_with(Memory(), self, site, step, value)

    def apply_with(self, memory: Memory, key: Any, site: Site, step: int, value: Tensor) -> Tensor:
        """The displaced state, minus the displacement by earlier blocks of this call."""
        drawn = torch.randn(value.shape[-1], generator=torch.Generator().manual_seed(self.seed)).to(value.device)
        drawn[torch.tensor(self.channels, device=value.device)] = 0.0
        size = value.new_zeros((*value.shape[:-1], 1), dtype=torch.float32)
        tokens = slice(None) if self.tokens is None else torch.tensor(self.tokens, device=value.device)
        size[:, tokens] = self.distance(value[self.place(value)], step, site.block)
        already = memory.displaced.get((key, site.stream))
        memory.displaced[key, site.stream] = size
        grown = size if already is None else size - already
        moved: Tensor = value + (grown * drawn / drawn.norm()).to(value.dtype)
        return moved

    def distance(self, values: Tensor, step: int, block: int) -> Tensor:
        """How far every selected token is moved, (batch, token, 1), from its values at the channels."""
        size: Tensor = values.float().norm(dim=-1, keepdim=True)
        return size

    def change(self, values: Tensor, step: int, block: int) -> Tensor:
        """Not used: the edit changes other channels than the selected ones."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, repr=False)
class DisplaceAsFar(Displace):
    """The same by the distance that `Transport` with these values would move the channels: a change of equal energy."""

    values: Values = dataclasses.field(kw_only=True)
    strength: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.values.check(self, ("step", "block", "token", "channel"))

    def distance(self, values: Tensor, step: int, block: int) -> Tensor:
        """strength |other - x|."""
        away = self.values.at(self, step, block, values) - values
        size: Tensor = abs(self.strength) * away.float().norm(dim=-1, keepdim=True)
        return size


@dataclasses.dataclass(frozen=True, repr=False)
class NormEdit(Selection):
    """An edit that also changes the mean and variance of later LayerNorms: of all, or of the next one (`reach`)."""

    reach: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.is_hidden:
            raise InputError(f"{type(self).__name__} edits hidden states; leave out at={self.at!r}")
        if self.reach not in REACHES:
            raise InputError(f"reach must be one of {', '.join(REACHES)} (LayerNorms after the edit); got {self.reach!r}")

    def apply_with(self, memory: Memory, key: Any, site: Site, step: int, value: Tensor) -> Tensor:
        """The edited state; the memory keeps the removed values for later LayerNorms."""
        memory.see(key, self, site, value)
        return self.apply(site, step, value)

    @abstractmethod
    def statistics_of(self, state: Tensor, removed: Tensor) -> Tensor:
        """The state whose mean and variance a LayerNorm uses."""


@dataclasses.dataclass(frozen=True, repr=False)
class ZeroNormsKept(NormEdit, Zero):
    """Set to 0; later LayerNorms use the mean and variance of the state with the channels."""

    def statistics_of(self, state: Tensor, removed: Tensor) -> Tensor:
        """The state with the channels."""
        return state + removed


@dataclasses.dataclass(frozen=True, repr=False)
class NormsAsIfZero(NormEdit):
    """Keep the channels; later LayerNorms use the mean and variance of the state with the channels at 0."""

    def change(self, values: Tensor, step: int, block: int) -> Tensor:
        """The values, unchanged."""
        return values

    def statistics_of(self, state: Tensor, removed: Tensor) -> Tensor:
        """The state without the channels."""
        return state - removed


Remembering = Displace | NormEdit
"""Edits that depend on earlier blocks of the same call."""


class Memory:
    """Effects of edits so far in the current call."""

    def __init__(self) -> None:
        self.removed: dict[tuple[Any, str], Tensor] = {}
        self.used: set[tuple[Any, str]] = set()
        self.displaced: dict[tuple[Any, str], Tensor] = {}
        self.changed: dict[tuple[Any, str], Tensor] = {}

    def begin_call(self) -> None:
        """Reset the memory at a new call of the transformer."""
        for done in (self.removed, self.used, self.displaced, self.changed):
            done.clear()

    def see(self, key: Any, edit: NormEdit, site: Site, value: Tensor) -> None:
        """Note a state before a norm edit changes it."""
        before = self.removed.get((key, site.stream))
        still_in = value if before is None or isinstance(edit, ZeroNormsKept) else value - before
        taken = torch.zeros_like(value)
        index = edit.place(value)
        taken[index] = still_in[index]
        self.removed[key, site.stream] = taken if before is None else before + taken
        self.used.discard((key, site.stream))

    def normed(
        self, key: Any, edit: NormEdit, norm: Norm, module: Any, state: Tensor, output: Tensor, lengths: Lengths
    ) -> Tensor:
        """The LayerNorm's output with the edit's statistics, if the edit removed values before it."""
        for stream in norm.streams:
            removed = self.removed.get((key, stream))
            if removed is None or (edit.reach == "next" and (key, stream) in self.used):
                continue
            count = removed.shape[1]
            place = slice(None)
            if len(norm.streams) > 1:  # streams are concatenated
                before = norm.streams[: norm.streams.index(stream)]
                last = stream == norm.streams[-1]
                start = state.shape[1] - count if last else sum(lengths[name] for name in before)
                place = slice(start, start + count)
            output, part = output.clone(), state[:, place]  # a norm may see the tokens on their grid
            output[:, place] = layer_norm(part, edit.statistics_of(part, removed.reshape(part.shape)), module)
            self.used.add((key, stream))
        return output

    def change(self, key: Any, site: Site, before: Tensor, after: Tensor) -> Tensor:
        """Energy changed so far in this call over the energy of the unedited state: a change at one block persists in the
        stream.
        """
        wide = after.float() - before.float()
        earlier = self.changed.get((key, site.stream))
        total = wide if earlier is None else earlier + wide
        self.changed[key, site.stream] = total
        whole: Tensor = (total**2).sum() / ((after.float() - total) ** 2).sum()
        return whole


def layer_norm(state: Tensor, statistics_of: Tensor, module: Any) -> Tensor:
    """(state - mean) / sqrt(variance + eps) over channels, with the mean and variance of `statistics_of`."""
    if not isinstance(module, torch.nn.LayerNorm) or module.elementwise_affine:
        raise ModelError(f"norm edits need a LayerNorm without weights; got {module}")
    wide = statistics_of.float()
    mean, variance = wide.mean(dim=-1, keepdim=True), wide.var(dim=-1, keepdim=True, correction=0)
    normed = (state.float() - mean) / (variance + float(module.eps)).sqrt()
    return normed.to(state.dtype)
