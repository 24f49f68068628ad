"""Recorders: reduce states during the forward pass. Their memory does not grow with the number of prompts.

A recorder receives its `sites`, as (batch, ...) tensors on the model's device, and after the run returns one
dictionary of arrays per row. Nothing waits for the device before the run ends: reductions go to a buffer (`Steps`).
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.base.errors import InputError, TraceError
from interp.base.site_recorder import SiteRecorder
from interp.base.sites import Site
from interp.tracing.steps import Entry, Moving, Steps

if TYPE_CHECKING:
    from interp.store.schema import HiddenAxes

Array = NDArray[Any]
RowArrays = dict[str, dict[str, Array]]  # group -> variable -> array without the prompt axis
Receive = Callable[[int, Tensor], None]
"""(step, value)."""
Reduce = Callable[[Tensor], Sequence[Tensor]]
HiddenSink = Callable[[int, int, int, str, Moving, int], None]
"""(position in the batch, step, block, stream, states of the batch on their way, bytes of one)."""
SMALL = 2**14  # elements of a state below which calling torch costs more than reading: such states are reduced together


class Recorder(abc.ABC):
    """An object that receives the states of a trace."""

    sites: Collection[Site]
    """The sites that it receives."""
    nbytes: int = 0
    """Bytes of its arrays, of all rows."""

    @abc.abstractmethod
    def receiver(self, site: Site) -> Receive:
        """What receives a site's values; asked for once per run. It must not change a value or keep a reference to it."""

    def end_step(self, step: int) -> None:  # noqa: B027
        """Called after all sites of a step."""

    def row(self, position: int) -> RowArrays:
        """The recorded arrays of one row of the batch; by default none are stored. After the run; waits for the device."""
        return {}


class Reducing(Recorder):
    """Reduces each value on its device, and keeps the reductions of a step together, in the order of its sites."""

    def __init__(
        self,
        sites: Iterable[Site],
        steps: Sequence[Steps],
        reduce: Reduce,
        counted: Mapping[str, Array] | None = None,
    ) -> None:
        """`reduce`: (batch, ...) -> one tensor of its own, (batch, ...), for each of `steps`.

        `counted`: the tokens that count, by stream, (row, token) boolean; all where a stream is left out.
        """
        self.order = tuple(sites)
        self.sites, self.steps, self.reduce = frozenset(self.order), steps, reduce
        self.counted = {stream: Counted(rows) for stream, rows in (counted or {}).items() if not rows.all()}
        self.entries: list[Entry] = []
        self.first: dict[Site, int] = {}
        for place, site in enumerate(self.order):
            self.first[site] = len(self.entries)
            own = self.counted.get(site.stream)
            self.entries += [(place, rows) for rows, _ in own.pieces] if own else [(place, slice(None))]
        self.seen = bytearray(len(self.entries))
        self.passed: list[Any] = [None] * len(self.entries)
        self.copies: list[Tensor | None] = [None] * len(self.entries)
        self.groups: list[_Alike] = []

    def receiver(self, site: Site) -> Receive:
        """Reduce a value, or copy a small one; rows in which other tokens count, by themselves."""
        counted, first = self.counted.get(site.stream), self.first[site]
        if counted is None:
            return functools.partial(self._receive, first)
        return functools.partial(self._receive_parts, first, counted)

    def _receive_parts(self, first: int, counted: Counted, step: int, value: Tensor) -> None:
        for entry, part in enumerate(counted.of(value), first):
            self._receive(entry, step, part)

    def _receive(self, entry: int, step: int, value: Tensor) -> None:
        if self.seen[entry]:
            site = self.order[self.entries[entry][0]]
            raise TraceError(f"{site} was seen twice in step {step}: its module ran more than once")
        self.seen[entry] = 1
        copy = self.copies[entry]
        if copy is None:
            self.passed[entry] = value.clone() if value.numel() <= SMALL else self.reduce(value)
        elif copy.shape == value.shape and copy.dtype == value.dtype:
            copy.copy_(value)
        else:
            site, (was, now) = self.order[self.entries[entry][0]], (f"{tuple(one.shape)} {one.dtype}" for one in (copy, value))
            raise TraceError(f"{site} was {was} before step {step} and is {now} in it: a site keeps its shape and dtype")

    def end_step(self, step: int) -> None:
        """Keep the step's reductions, those of one shape together."""
        if 0 in self.seen:
            site = self.order[self.entries[self.seen.index(0)][0]]
            raise TraceError(f"{site} was not seen in step {step}: its module did not run")
        self.groups = self.groups or [_Alike(own, self.passed, self.copies) for own in _alike(self.passed)]
        for number, group in enumerate(self.groups):
            entries = [self.entries[entry] for entry in group.places]
            for steps, found in zip(self.steps, group.reduced(self.passed, self.reduce), strict=True):
                steps.add(number, entries, found)
        self.seen = bytearray(len(self.entries))

    def of_row(self, steps: Steps, position: int, *shape: int) -> Array:
        """What one of `steps` holds of a row, (step, site, *shape)."""
        return steps.numpy()[:, :, position] if self.order else np.empty((steps.steps, 0, *shape), np.float32)

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        """Bytes on the host."""
        return sum(steps.nbytes for steps in self.steps)

    def not_finite(self, position: int) -> Iterator[tuple[int, Site]]:
        """(step, site) at which a row's state held a NaN or an Inf; by default it is not known."""
        yield from ()


class Counted:
    """The tokens of a stream that count."""

    def __init__(self, counted: Array) -> None:
        """`counted`: (row, token) booleans."""
        starts = [row for row in range(len(counted)) if row == 0 or not np.array_equal(counted[row], counted[row - 1])]
        self.pieces = [
            (slice(start, stop), np.flatnonzero(counted[start]))
            for start, stop in zip(starts, [*starts[1:], len(counted)], strict=True)
        ]
        self.index: dict[torch.device, list[Tensor]] = {}

    def of(self, value: Tensor) -> list[Tensor]:
        """(batch, token, channel) -> the tokens that count, neighbouring rows together in which the same ones do."""
        if value.device not in self.index:
            self.index[value.device] = [torch.from_numpy(tokens).to(value.device) for _, tokens in self.pieces]
        pieces = zip(self.pieces, self.index[value.device], strict=True)
        return [value[rows].index_select(1, tokens) for (rows, _), tokens in pieces]


class HiddenRecorder(Recorder):
    """Full hidden states of a selection, passed to `sink` as they arrive: (token, channel) each, on their way to the host."""

    def __init__(self, axes: Mapping[str, HiddenAxes], sink: HiddenSink) -> None:
        self.axes, self.sink = axes, sink
        self.sites = {Site(block, stream, "hidden") for stream, own in axes.items() for block in own.blocks}
        self.chosen: dict[Any, Tensor] = {}

    def receiver(self, site: Site) -> Receive:
        """Select and copy the state, and pass it to the sink."""
        return functools.partial(self._receive, site)

    def _receive(self, site: Site, step: int, value: Tensor) -> None:
        axes = self.axes[site.stream]
        if step not in axes.steps:
            return
        for axis, chosen in ((1, axes.tokens), (2, axes.channels)):
            if len(chosen) < value.shape[axis]:
                value = value.index_select(axis, self._index(site.stream, axis, chosen, value.device))
        moving = Moving(value)
        for position in range(len(value)):
            self.sink(position, step, site.block, site.stream, moving, moving.nbytes // len(value))

    def _index(self, stream: str, axis: int, chosen: Sequence[int], device: torch.device) -> Tensor:
        key = (stream, axis, device)
        if key not in self.chosen:
            self.chosen[key] = torch.tensor(chosen, device=device)
        return self.chosen[key]


class OwnRecorder(Reducing):
    """A user's function of (site, step, value): variable `value` of (step, site, *axes)."""

    def __init__(self, own: SiteRecorder, sites: Sequence[Site], steps: int, batch: int) -> None:
        self.own, self.expected = own, (batch, *own.axes.values())
        self.values = Steps(steps)
        super().__init__(sites, (self.values,), copied)

    def receiver(self, site: Site) -> Receive:
        """Apply the function and check the result."""
        return functools.partial(self._apply, site)

    def _apply(self, site: Site, step: int, value: Tensor) -> None:
        result = self.own.function(site, step, value)
        if not isinstance(result, Tensor) or tuple(result.shape) != self.expected:
            given = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            axes = ", ".join(("batch", *self.own.axes))
            raise InputError(
                f"SiteRecorder {self.own.name}: its function must return ({axes}) = {self.expected}; at {site}: {given}"
            )
        self._receive(self.first[site], step, result.detach().float())

    def row(self, position: int) -> RowArrays:
        """One array."""
        return {f"recorded/{self.own.name}": {"value": self.values.numpy()[:, :, position]}}


def copied(value: Tensor) -> tuple[Tensor]:
    """A float32 copy."""
    return (value.to(torch.float32, copy=True),)


class _Alike:
    """Values of one shape. Small ones are copied into one tensor, which is reduced at once."""

    def __init__(self, places: list[int], passed: list[Any], copies: list[Tensor | None]) -> None:
        """`copies` gets the place of each small value in that tensor: later steps copy into it."""
        self.places, self.copies = places, None
        if isinstance(passed[places[0]], Tensor):
            self.copies = torch.stack([passed[place] for place in places])
            for place, copy in zip(places, self.copies, strict=True):
                passed[place], copies[place] = None, copy

    def reduced(self, passed: list[Any], reduce: Reduce) -> list[Any]:
        """Per reduction: (entry, row, ...), or a list of tensors, which are not needed any more."""
        if self.copies is not None:
            found = reduce(self.copies.flatten(0, 1))
            return [one.reshape(*self.copies.shape[:2], *one.shape[1:]) for one in found]
        parts = [list(one) for one in zip(*(passed[place] for place in self.places), strict=True)]
        for place in self.places:
            passed[place] = None
        return parts


def _alike(passed: Sequence[Any]) -> list[list[int]]:
    """Places of values that can be stacked."""
    found: dict[Any, list[int]] = {}
    for place, own in enumerate(passed):
        tensors = [own] if isinstance(own, Tensor) else own
        key = (isinstance(own, Tensor), *((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors))
        found.setdefault(key, []).append(place)
    return list(found.values())
