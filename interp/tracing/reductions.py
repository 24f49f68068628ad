"""Reductions of a run's states, and where they lie on the stored axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.base.sites import Site
from interp.models.anatomy import Anatomy
from interp.tracing.recorders import Array, Recorder, Reducing, RowArrays, copied
from interp.tracing.statistics import STATISTICS, median, row_sums, sample_magnitudes, token_mean, token_statistics
from interp.tracing.steps import Steps

OF_FRAMES = STATISTICS[:3]  # mean, mean |x|, max |x|


class StatisticsRecorder(Reducing):
    """Statistics over the tokens of a stream, per channel: variables of (step, block, channel) float32, NaN where absent."""

    def __init__(self, anatomy: Anatomy, stream: str, steps: int, counted: Mapping[str, Array] | None = None) -> None:
        self.group, self.values, self.medians = f"stats/{stream}", Steps(steps), Steps(steps, median)
        super().__init__(in_grid(anatomy, stream, "hidden"), (self.values, self.medians), _statistics, counted)
        self.grid, self.width = Places(self.order, anatomy), anatomy.stream(stream).width

    @property
    def covered(self) -> set[Site]:
        """Sites of which every token counts."""
        return {site for site in self.order if site.stream not in self.counted}

    def not_finite(self, position: int) -> Iterator[tuple[int, Site]]:
        """Those whose mean |x| is not finite."""
        sizes = self.of_row(self.values, position, len(STATISTICS), self.width)[:, :, STATISTICS.index("mean_abs")]
        for step, place in np.argwhere(~np.isfinite(sizes.sum(axis=-1, dtype=np.float64))):
            yield int(step), self.order[place]

    def row(self, position: int) -> RowArrays:
        """One array per statistic, and the median |x| of each state."""
        values = self.of_row(self.values, position, len(STATISTICS), self.width)
        found = {name: self.grid.place(values[:, :, number]) for number, name in enumerate(STATISTICS)}
        return {self.group: {**found, "median_abs": self.grid.place(self.of_row(self.medians, position))}}


class FramesRecorder(Reducing):
    """Statistics over the tokens of every latent frame: variables of (step, block, frame, channel) float32, NaN where absent.

    `edge_abs` is the mean |x| over a frame's first and last row of tokens: its ends in the order of tokens.
    """

    def __init__(self, anatomy: Anatomy, stream: str, steps: int, sizes: Sequence[int]) -> None:
        """`sizes`: tokens along the stream's axes, frames first."""
        self.group, self.values, self.shape = f"frames/{stream}", Steps(steps), tuple(sizes)
        super().__init__(in_grid(anatomy, stream, "hidden"), (self.values,), self._of_frames)
        self.grid, self.width = Places(self.order, anatomy), anatomy.stream(stream).width

    def _of_frames(self, value: Tensor) -> tuple[Tensor]:
        """(batch, token, channel) -> (batch, frame, statistic, channel)."""
        batch, frames = len(value), value.reshape(len(value) * self.shape[0], -1, self.width)
        row = frames.shape[1] // self.shape[1]
        ends = torch.cat([frames[:, :row], frames[:, -row:]], dim=1).abs()
        found = torch.cat([token_statistics(frames)[:, : len(OF_FRAMES)], token_mean(ends)[:, None]], dim=1)
        return (found.reshape(batch, self.shape[0], *found.shape[1:]),)

    def row(self, position: int) -> RowArrays:
        """One array per statistic."""
        values = self.of_row(self.values, position, self.shape[0], len(OF_FRAMES) + 1, self.width)
        names = (*OF_FRAMES, "edge_abs")
        return {self.group: {name: self.grid.place(values[..., number, :]) for number, name in enumerate(names)}}


class GatesRecorder(Reducing):
    """Alpha of a stream, and optionally shift and scale: variables of (step, block, gate, channel), NaN where absent."""

    def __init__(self, anatomy: Anatomy, stream: str, steps: int, kinds: Sequence[str]) -> None:
        self.group, self.values = f"gates/{stream}", Steps(steps)
        super().__init__(in_grid(anatomy, stream, *kinds), (self.values,), copied)
        self.grids = {kind: Places(self.order, anatomy, kind, anatomy.gates) for kind in kinds}
        self.width = anatomy.stream(stream).width

    def row(self, position: int) -> RowArrays:
        """One array each of alpha, shift, scale."""
        values = self.of_row(self.values, position, self.width)
        return {self.group: {kind: grid.place(values) for kind, grid in self.grids.items()}}


class BranchRecorder(Reducing):
    """Branch outputs of a stream before alpha multiplies them, and its embedding, as means over tokens.

    The mean of the state is `embedding` plus the sum of alpha x `branch` over gates and blocks (1 x `branch` without a gate).
    `position` is the position embedding's part of the embedding, if the model adds one.
    """

    def __init__(
        self, anatomy: Anatomy, stream: str, steps: int, position: Array | None, counted: Mapping[str, Array] | None = None
    ) -> None:
        sites = [site for site in in_grid(anatomy, stream, "branch", "input") if site.kind == "branch" or site.block == 0]
        self.group, self.values = f"branches/{stream}", Steps(steps)
        super().__init__(sites, (self.values,), _mean, counted)
        self.grid = Places(self.order, anatomy, "branch", anatomy.writers)
        self.embedding = Places(self.order, anatomy, "input", blocks=1)
        self.width = anatomy.stream(stream).width
        self.position = np.zeros(self.width, np.float32) if position is None else position.mean(axis=0)

    def row(self, position: int) -> RowArrays:
        """Branches, embedding and its positional part."""
        values = self.of_row(self.values, position, self.width)
        embedding = self.embedding.place(values)[:, 0]
        return {self.group: {"branch": self.grid.place(values), "embedding": embedding, "position": self.position}}


class FiniteCheck(Reducing):
    """Whether states hold a NaN or an Inf, where no statistic says so."""

    def __init__(self, anatomy: Anatomy, steps: int, recorders: Sequence[Recorder]) -> None:
        known = {site for one in recorders if isinstance(one, StatisticsRecorder) for site in one.covered}
        self.sums = Steps(steps)
        sites = (site for stream in anatomy.stream_names for site in in_grid(anatomy, stream, "hidden"))
        super().__init__((site for site in sites if site not in known), (self.sums,), _sums)

    def not_finite(self, position: int) -> Iterator[tuple[int, Site]]:
        """Those whose sum is not finite."""
        for step, place in np.argwhere(~np.isfinite(self.sums.numpy()[:, :, position])) if self.order else ():
            yield int(step), self.order[place]


class Places:
    """Where a stream's sites of a kind lie on the stored axes (block,) or (block, gate)."""

    def __init__(
        self, order: Sequence[Site], anatomy: Anatomy, kind: str = "hidden", gates: Sequence[str] = (), blocks: int = 0
    ) -> None:
        """`gates`: the names on the gate axis; without names there is no such axis. `blocks`: only the first ones."""
        self.places = [place for place, site in enumerate(order) if site.kind == kind]
        self.shape = (blocks or len(anatomy.blocks), *([len(gates)] if gates else []))
        sites = [order[place] for place in self.places]
        index = [(site.block, *([gates.index(str(site.gate))] if gates else [])) for site in sites]
        self.index: Any = tuple(np.array(index, int).reshape(-1, len(self.shape)).T)
        flat = np.ravel_multi_index(self.index, self.shape)
        self.whole = len(self.places) == len(order) and np.array_equal(flat, np.arange(np.prod(self.shape)))

    def place(self, values: Array) -> Array:
        """(step, site, ...) -> (step, block, ...), NaN where there is no site; a view where every place has one."""
        if self.whole:
            return values.reshape(len(values), *self.shape, *values.shape[2:])
        found = np.full((len(values), *self.shape, *values.shape[2:]), np.nan, np.float32)
        found[(slice(None), *self.index)] = values[:, self.places]
        return found


def _statistics(value: Tensor) -> tuple[Tensor, Tensor]:
    return token_statistics(value), sample_magnitudes(value)


def _mean(value: Tensor) -> tuple[Tensor]:
    return (token_mean(value),)


def _sums(value: Tensor) -> tuple[Tensor]:
    return (row_sums(value),)


def in_grid(anatomy: Anatomy, stream: str, *kinds: str) -> list[Site]:
    """The sites of some kinds of a stream in the order of the stored axes: block, gate."""
    gates = anatomy.writers

    def place(site: Site) -> tuple[int, int, int]:
        gate = gates.index(site.gate) if site.gate in gates else 0
        return kinds.index(site.kind), site.block, gate

    return sorted(sites_of(anatomy, stream, *kinds), key=place)


def sites_of(anatomy: Anatomy, stream: str, *kinds: str) -> Iterator[Site]:
    """The sites of some kinds of a stream, such as `hidden`."""
    return (site for site in anatomy.sites() if site.stream == stream and site.kind in kinds)


def stream_present(anatomy: Anatomy, stream: str) -> Array:
    """(block,) booleans: where the stream has a hidden state."""
    return np.array([stream in block.hidden for block in anatomy.blocks])


def gate_present(anatomy: Anatomy, stream: str, kind: str = "alpha") -> Array:
    """(block, gate) booleans: where a stream has a gate (or its shift or scale); for "branch", over the anatomy's writers."""
    gates = anatomy.writers if kind == "branch" else anatomy.gates
    present = np.zeros((len(anatomy.blocks), len(gates)), bool)
    for site in sites_of(anatomy, stream, kind):
        present[site.block, gates.index(str(site.gate))] = True
    return present
