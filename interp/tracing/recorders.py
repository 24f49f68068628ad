"""Recorders: reduce states during the forward pass. Their memory does not grow with the number of prompts.

A recorder receives its `sites`, as (batch, ...) tensors on the model's device, and after the run returns one
dictionary of arrays per row. Tensors are moved off the device together, once per step.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.base.errors import InputError
from interp.base.site_recorder import SiteRecorder
from interp.base.sites import Site
from interp.models.anatomy import Anatomy
from interp.tracing.statistics import STATISTICS, median_magnitude, token_mean, token_statistics

if TYPE_CHECKING:
    from interp.store.schema import HiddenAxes

Array = NDArray[Any]
RowArrays = dict[str, dict[str, Array]]  # group -> variable -> array without the prompt axis
HiddenSink = Callable[[int, int, int, str, Array], None]  # (position in the batch, step, block, stream, state)


class Recorder(abc.ABC):
    """An object that receives the states of a trace."""

    sites: Collection[Site]
    """The sites that it receives."""

    @abc.abstractmethod
    def see(self, site: Site, step: int, value: Tensor) -> None:
        """Receive a value; do not change it or keep a reference to it."""

    def end_step(self, step: int) -> None:  # noqa: B027
        """Called after all sites of a step."""

    def row(self, position: int) -> RowArrays:
        """The recorded arrays of one row of the batch; by default none are stored."""
        return {}


class Reducing(Recorder):
    """Reduces each value on its device, and moves the reductions of a step off the device together."""

    def __init__(
        self, sites: Iterable[Site], reduce: Callable[[Tensor], Tensor], counted: Mapping[str, Array] | None = None
    ) -> None:
        """`counted`: the tokens that count, by stream, (row, token) boolean; all where a stream is left out."""
        self.sites, self.reduce = frozenset(sites), reduce
        self.counted = {
            stream: [torch.from_numpy(np.flatnonzero(row)) for row in rows] for stream, rows in (counted or {}).items()
        }
        self.passed: list[tuple[Site, Tensor]] = []

    @abc.abstractmethod
    def keep(self, site: Site, step: int, reduced: Array) -> None:
        """Receive a reduction on the CPU; sites come in execution order."""

    def see(self, site: Site, step: int, value: Tensor) -> None:
        """Reduce a value, each row by itself where only some of its tokens count."""
        counted = self.counted.get(site.stream)
        if counted is None or all(len(row) == value.shape[1] for row in counted):
            reduced = self.reduce(value)
        else:
            tokens = [row.to(value.device, non_blocking=True) for row in counted]
            parts = zip(torch.split(value, 1), tokens, strict=True)
            reduced = torch.cat([self.reduce(row.index_select(1, kept)) for row, kept in parts])
        self.passed.append((site, reduced))

    def end_step(self, step: int) -> None:
        """Move the step's reductions off the device."""
        stacked = torch.stack([reduced for _, reduced in self.passed]).cpu().numpy()
        for (site, _), reduced in zip(self.passed, stacked, strict=True):
            self.keep(site, step, reduced)
        self.passed.clear()


class StatisticsRecorder(Reducing):
    """Statistics over tokens per channel: variables of (step, block, stream, channel) float32, NaN where absent."""

    def __init__(self, anatomy: Anatomy, steps: int, batch: int, counted: Mapping[str, Array] | None = None) -> None:
        super().__init__(sites_of(anatomy, "hidden"), _statistics, counted)
        shape = (batch, len(STATISTICS), steps, len(anatomy.blocks), len(anatomy.streams), anatomy.channels)
        self.values = np.full(shape, np.nan, np.float32)
        self.medians = np.full((batch, steps, len(anatomy.blocks), len(anatomy.streams)), np.nan, np.float32)
        self.streams = anatomy.streams

    def keep(self, site: Site, step: int, reduced: Array) -> None:
        """Keep a block's statistics."""
        stream = self.streams.index(site.stream)
        self.values[:, :, step, site.block, stream] = reduced[:, :-1].reshape(len(reduced), len(STATISTICS), -1)
        self.medians[:, step, site.block, stream] = reduced[:, -1]

    def row(self, position: int) -> RowArrays:
        """One array per statistic, and the median |x| of each state."""
        return {"stats": {**dict(zip(STATISTICS, self.values[position], strict=True)), "median_abs": self.medians[position]}}


class GatesRecorder(Reducing):
    """Alpha, and optionally shift and scale: variables of (step, block, stream, gate, channel), NaN where absent."""

    def __init__(self, anatomy: Anatomy, steps: int, batch: int, kinds: Sequence[str]) -> None:
        super().__init__(sites_of(anatomy, *kinds), Tensor.float)
        self.kinds, self.streams, self.gates = tuple(kinds), anatomy.streams, anatomy.gates
        shape = (len(anatomy.blocks), len(self.streams), len(self.gates), anatomy.channels)
        self.values = np.full((batch, len(self.kinds), steps, *shape), np.nan, np.float32)

    def keep(self, site: Site, step: int, reduced: Array) -> None:
        """Keep a gate's value."""
        place = (self.streams.index(site.stream), self.gates.index(str(site.gate)))
        self.values[:, self.kinds.index(site.kind), step, site.block, *place] = reduced

    def row(self, position: int) -> RowArrays:
        """One array each of alpha, shift, scale."""
        return {"gates": dict(zip(self.kinds, self.values[position], strict=True))}


class BranchRecorder(Reducing):
    """Branch outputs before alpha multiplies them, and the embedding, as means over tokens.

    The mean of the state is `embedding` plus the sum of alpha x `branch` over gates and blocks (1 x `branch` without a gate).
    `position` is the position embedding's part of the embedding, if the model adds one.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        steps: int,
        batch: int,
        position: Array | None,
        counted: Mapping[str, Array] | None = None,
    ) -> None:
        sites = (site for site in sites_of(anatomy, "branch", "input") if site.kind == "branch" or site.block == 0)
        super().__init__(sites, token_mean, counted)
        self.streams, self.writers = anatomy.streams, anatomy.writers
        shape = (batch, steps, len(anatomy.blocks), len(self.streams), len(self.writers), anatomy.channels)
        self.values = np.full(shape, np.nan, np.float32)
        self.embedding = np.full((batch, steps, len(self.streams), anatomy.channels), np.nan, np.float32)
        self.position = np.zeros((len(self.streams), anatomy.channels), np.float32)
        if position is not None:
            self.position[self.streams.index("image")] = position.mean(axis=0)

    def keep(self, site: Site, step: int, reduced: Array) -> None:
        """Keep a branch's mean, or that of the first block's input."""
        stream = self.streams.index(site.stream)
        if site.kind == "input":
            self.embedding[:, step, stream] = reduced
        else:
            self.values[:, step, site.block, stream, self.writers.index(str(site.gate))] = reduced

    def row(self, position: int) -> RowArrays:
        """Branches, embedding and its positional part."""
        own = {"branch": self.values[position], "embedding": self.embedding[position], "position": self.position}
        return {"branches": own}


class FiniteCheck(Reducing):
    """Rows of the batch with a NaN or an Inf, and the first step and site of each."""

    def __init__(self, anatomy: Anatomy, batch: int) -> None:
        super().__init__(sites_of(anatomy, "hidden"), _row_sums)
        self.found: list[tuple[int, Site] | None] = [None] * batch

    def keep(self, site: Site, step: int, reduced: Array) -> None:
        """Note rows whose sum is not finite for the first time."""
        for position in np.flatnonzero(~np.isfinite(reduced)):
            self.found[position] = self.found[position] or (step, site)


class HiddenRecorder(Recorder):
    """Full hidden states of a selection, passed to `sink` as they arrive: (token, channel) float32 each."""

    def __init__(self, axes: Mapping[str, HiddenAxes], sink: HiddenSink) -> None:
        self.axes, self.sink = axes, sink
        self.sites = {Site(block, stream, "hidden") for stream, own in axes.items() for block in own.blocks}

    def see(self, site: Site, step: int, value: Tensor) -> None:
        """Select and copy the state, and pass it to the sink."""
        axes = self.axes[site.stream]
        if step not in axes.steps:
            return
        for axis, chosen in ((1, axes.tokens), (2, axes.channels)):
            if len(chosen) < value.shape[axis]:
                value = value.index_select(axis, torch.tensor(chosen, device=value.device))
        states = value.to("cpu", torch.float32, copy=True).numpy()
        for position, state in enumerate(states):
            self.sink(position, step, site.block, site.stream, state)


class OwnRecorder(Recorder):
    """A user's function of (site, step, value): variable `value` of (step, site, *axes)."""

    sites: Sequence[Site]

    def __init__(self, own: SiteRecorder, sites: Sequence[Site], steps: int, batch: int) -> None:
        self.own, self.sites = own, sites
        self.values = np.full((batch, steps, len(self.sites), *own.axes.values()), np.nan, np.float32)

    def see(self, site: Site, step: int, value: Tensor) -> None:
        """Apply the function and check the result."""
        result = self.own.function(site, step, value)
        expected = (self.values.shape[0], *self.own.axes.values())
        if not isinstance(result, Tensor) or tuple(result.shape) != expected:
            given = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            axes = ", ".join(("batch", *self.own.axes))
            raise InputError(
                f"SiteRecorder {self.own.name}: its function must return ({axes}) = {expected}; at {site}: {given}"
            )
        self.values[:, step, self.sites.index(site)] = result.detach().to("cpu", torch.float32).numpy()

    def row(self, position: int) -> RowArrays:
        """One array."""
        return {f"recorded/{self.own.name}": {"value": self.values[position]}}


def _statistics(value: Tensor) -> Tensor:
    """(batch, statistic x channel, then the median)."""
    return torch.cat([token_statistics(value).flatten(1), median_magnitude(value)[:, None]], dim=1)


def _row_sums(value: Tensor) -> Tensor:
    """One sum per row: it is not finite if an element is not."""
    return value.flatten(1).sum(dim=1, dtype=torch.float32)


def sites_of(anatomy: Anatomy, *kinds: str) -> Iterator[Site]:
    """The sites of some kinds, such as `hidden`."""
    return (site for site in anatomy.sites() if site.kind in kinds)


def stream_present(anatomy: Anatomy) -> Array:
    """(block, stream) booleans: where a hidden state exists."""
    return np.array([[stream in block.hidden for stream in anatomy.streams] for block in anatomy.blocks])


def gate_present(anatomy: Anatomy, kind: str = "alpha") -> Array:
    """(block, stream, gate) booleans: where a gate (or its shift or scale) exists; for "branch", over the anatomy's writers."""
    gates = anatomy.writers if kind == "branch" else anatomy.gates
    present = np.zeros((len(anatomy.blocks), len(anatomy.streams), len(gates)), bool)
    for site in sites_of(anatomy, kind):
        present[site.block, anatomy.streams.index(site.stream), gates.index(str(site.gate))] = True
    return present
