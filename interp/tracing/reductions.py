"""Reductions of a run's states, and where they lie on the stored axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from interp.base.sites import Site
from interp.models.anatomy import Anatomy
from interp.tracing.recorders import Array, Recorder, Reducing, RowArrays, copied
from interp.tracing.statistics import STATISTICS, median, row_sums, sample_magnitudes, token_mean, token_statistics
from interp.tracing.steps import Steps


class StatisticsRecorder(Reducing):
    """Statistics over tokens per channel: variables of (step, block, stream, channel) float32, NaN where absent."""

    def __init__(self, anatomy: Anatomy, steps: int, counted: Mapping[str, Array] | None = None) -> None:
        self.values, self.medians = Steps(steps), Steps(steps, median)
        super().__init__(in_grid(anatomy, "hidden"), (self.values, self.medians), _statistics, counted)
        self.grid = Places(self.order, anatomy)

    @property
    def covered(self) -> set[Site]:
        """Sites of which every token counts."""
        return {site for site in self.order if site.stream not in self.counted}

    def not_finite(self, position: int) -> Iterator[tuple[int, Site]]:
        """Those whose mean |x| is not finite."""
        sizes = self.values.numpy()[:, :, position, STATISTICS.index("mean_abs")]
        for step, place in np.argwhere(~np.isfinite(sizes.sum(axis=-1, dtype=np.float64))):
            yield int(step), self.order[place]

    def row(self, position: int) -> RowArrays:
        """One array per statistic, and the median |x| of each state."""
        values = self.values.numpy()[:, :, position]
        found = {name: self.grid.place(values[:, :, number]) for number, name in enumerate(STATISTICS)}
        return {"stats": {**found, "median_abs": self.grid.place(self.medians.numpy()[:, :, position])}}


class GatesRecorder(Reducing):
    """Alpha, and optionally shift and scale: variables of (step, block, stream, gate, channel), NaN where absent."""

    def __init__(self, anatomy: Anatomy, steps: int, kinds: Sequence[str]) -> None:
        self.values = Steps(steps)
        super().__init__(in_grid(anatomy, *kinds), (self.values,), copied)
        self.grids = {kind: Places(self.order, anatomy, kind, anatomy.gates) for kind in kinds}
        self.empty = (steps, len(anatomy.blocks), len(anatomy.streams), 0, anatomy.channels)

    def row(self, position: int) -> RowArrays:
        """One array each of alpha, shift, scale."""
        if not self.order:
            return {"gates": {kind: np.empty(self.empty, np.float32) for kind in self.grids}}
        values = self.values.numpy()[:, :, position]
        return {"gates": {kind: grid.place(values) for kind, grid in self.grids.items()}}


class BranchRecorder(Reducing):
    """Branch outputs before alpha multiplies them, and the embedding, as means over tokens.

    The mean of the state is `embedding` plus the sum of alpha x `branch` over gates and blocks (1 x `branch` without a gate).
    `position` is the position embedding's part of the embedding, if the model adds one.
    """

    def __init__(
        self, anatomy: Anatomy, steps: int, position: Array | None, counted: Mapping[str, Array] | None = None
    ) -> None:
        sites = [site for site in in_grid(anatomy, "branch", "input") if site.kind == "branch" or site.block == 0]
        self.values = Steps(steps)
        super().__init__(sites, (self.values,), _mean, counted)
        self.grid = Places(self.order, anatomy, "branch", anatomy.writers)
        self.embedding = Places(self.order, anatomy, "input", blocks=1)
        self.position = np.zeros((len(anatomy.streams), anatomy.channels), np.float32)
        if position is not None:
            self.position[anatomy.streams.index("image")] = position.mean(axis=0)

    def row(self, position: int) -> RowArrays:
        """Branches, embedding and its positional part."""
        values = self.values.numpy()[:, :, position]
        embedding = self.embedding.place(values)[:, 0]
        return {"branches": {"branch": self.grid.place(values), "embedding": embedding, "position": self.position}}


class FiniteCheck(Reducing):
    """Whether states hold a NaN or an Inf, where no statistic says so."""

    def __init__(self, anatomy: Anatomy, steps: int, recorders: Sequence[Recorder]) -> None:
        known = {site for one in recorders if isinstance(one, StatisticsRecorder) for site in one.covered}
        self.sums = Steps(steps)
        super().__init__((site for site in in_grid(anatomy, "hidden") if site not in known), (self.sums,), _sums)

    def not_finite(self, position: int) -> Iterator[tuple[int, Site]]:
        """Those whose sum is not finite."""
        for step, place in np.argwhere(~np.isfinite(self.sums.numpy()[:, :, position])) if self.order else ():
            yield int(step), self.order[place]


class Places:
    """Where the sites of a kind lie on the stored axes (block, stream) or (block, stream, gate)."""

    def __init__(
        self, order: Sequence[Site], anatomy: Anatomy, kind: str = "hidden", gates: Sequence[str] = (), blocks: int = 0
    ) -> None:
        """`gates`: the names on the gate axis; without names there is no such axis. `blocks`: only the first ones."""
        self.places = [place for place, site in enumerate(order) if site.kind == kind]
        self.shape = (blocks or len(anatomy.blocks), len(anatomy.streams), *([len(gates)] if gates else []))
        index = [
            (site.block, anatomy.streams.index(site.stream), *([gates.index(str(site.gate))] if gates else []))
            for site in (order[place] for place in self.places)
        ]
        self.index: Any = tuple(np.array(index, int).reshape(-1, len(self.shape)).T)
        flat = np.ravel_multi_index(self.index, self.shape)
        self.whole = len(self.places) == len(order) and np.array_equal(flat, np.arange(np.prod(self.shape)))

    def place(self, values: Array) -> Array:
        """(step, site, ...) -> (step, block, stream, ...), NaN where there is no site; a view where every place has one."""
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


def in_grid(anatomy: Anatomy, *kinds: str) -> list[Site]:
    """The sites of some kinds in the order of the stored axes: block, stream, gate."""
    streams, gates = anatomy.streams, anatomy.writers

    def place(site: Site) -> tuple[int, int, int, int]:
        gate = gates.index(site.gate) if site.gate in gates else 0
        return kinds.index(site.kind), site.block, streams.index(site.stream), gate

    return sorted(sites_of(anatomy, *kinds), key=place)


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
