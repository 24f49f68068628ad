"""Results of every step, kept on their device and moved to the host without waiting for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
CHUNK = 64 * 2**20  # bytes kept on a card before they are moved
STAYS = ("cpu",)  # devices whose buffers hold all steps


class Moving:
    """A tensor on its way to the host: into pinned memory from a card, else a copy. `numpy` waits for it."""

    def __init__(self, value: Tensor, *, copy: bool = True) -> None:
        self.event: Any = None
        if value.is_cuda:
            self.host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
            self.host.copy_(value, non_blocking=True)
            self.event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.event.record(torch.cuda.current_stream(value.device))
        else:
            self.host = value.to("cpu", copy=copy)

    @property
    def nbytes(self) -> int:
        """Bytes as float32."""
        return self.host.numel() * 4

    def numpy(self) -> Array:
        """The values, float32."""
        if self.event is not None:
            self.event.synchronize()
        return self.host.float().numpy()


Entry = tuple[int, slice]
"""A place in the order of sites, and rows of the batch."""


class Steps:
    """What each step gives: the same groups of tensors every time, those of a group of one device and shape.

    A group's tensors of a step are copied into a buffer on their device by one operation. A full buffer is moved to the host;
    on the CPU the buffer holds all steps and stays.
    """

    def __init__(self, steps: int, finish: Callable[[Tensor], Tensor] = lambda value: value) -> None:
        """`finish` reduces (step, entry, ...) before it is moved."""
        self.steps, self.finish = steps, finish
        self.groups: list[_Group] = []
        self.whole: Array | None = None

    def add(self, number: int, entries: Sequence[Entry], found: Tensor | list[Tensor]) -> None:
        """Keep a step of group `number`: its tensors, or one that holds all of them, (entry, row, ...), of any dtype."""
        if number == len(self.groups):
            self.groups.append(_Group(found if isinstance(found, Tensor) else found[0][None], entries, self))
        self.groups[number].add(found)

    @property
    def nbytes(self) -> int:
        """Bytes on the host, of all steps."""
        return sum(group.nbytes for group in self.groups)

    def numpy(self) -> Array:
        """(step, place, row, ...) float32; waits for the device."""
        if self.whole is None:
            self.whole = self._joined()
        return self.whole

    def _joined(self) -> Array:
        found = [group.numpy() for group in self.groups]
        entries = [entry for group in self.groups for entry in group.entries]
        if len(found) == 1 and entries == [(place, slice(None)) for place in range(len(entries))]:
            return found[0]
        places = 1 + max(place for place, _ in entries)
        rows = max(values.shape[2] if rows.stop is None else rows.stop for values in found for _, rows in entries)
        whole = np.empty((found[0].shape[0], places, rows, *found[0].shape[3:]), np.float32)
        for group, values in zip(self.groups, found, strict=True):
            for number, (place, own) in enumerate(group.entries):
                whole[:, place, own] = values[:, number]
        return whole


class _Group:
    """The tensors of one device and shape."""

    def __init__(self, like: Tensor, entries: Sequence[Entry], owner: Steps) -> None:
        self.entries, self.finish = entries, owner.finish
        shape = (len(entries), *like.shape[1:])
        size = 4 * math.prod(shape)
        self.stays = like.device.type in STAYS
        most = owner.steps if self.stays else min(owner.steps, max(1, CHUNK // max(size, 1)))
        self.nbytes = owner.steps * size
        self.buffer = torch.empty((most, *shape), dtype=torch.float32, device=like.device)
        self.filled = 0
        self.moved: list[Moving] = []
        self.result: Array | None = None

    def add(self, found: Tensor | list[Tensor]) -> None:
        if isinstance(found, Tensor):
            self.buffer[self.filled].copy_(found)
        else:
            torch.stack(found, out=self.buffer[self.filled])
        self.filled += 1
        if self.filled == len(self.buffer) and not self.stays:
            self.move()

    def move(self) -> None:
        self.moved.append(Moving(self.finish(self.buffer[: self.filled]), copy=not self.stays))
        self.filled = 0

    def numpy(self) -> Array:
        if self.result is None:
            if self.filled:
                self.move()
            parts = [moving.numpy() for moving in self.moved]
            self.result = parts[0] if len(parts) == 1 else np.concatenate(parts)
            self.moved = []
        return self.result
