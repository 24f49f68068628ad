"""Write rows in one thread behind a bounded queue: the model rarely waits for the disk, and memory use stays bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr

from interp.base.errors import InterpError, StoreError
from interp.store.create import storage_message
from interp.store.first_schema import Rows, streams_of
from interp.store.locations import remove
from interp.store.reader import undo
from interp.store.schema import Array, Groups
from interp.store.summary import Totals

Job = Callable[[], None]


class Writer:
    """Writes into an existing store, as a context manager. A failed write raises at the next call."""

    def __init__(
        self, path: Path, *, totals: Totals | None = None, streams: Sequence[str] = (), budget: int = 256 * 2**20
    ) -> None:
        """`totals` adds up the written rows; `streams` are the model's, which a store of schema 1 may name otherwise."""
        self.path, self.totals, self._streams = path, totals, tuple(streams)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._thread = ThreadPoolExecutor(1, "interp-writer")
        self._jobs: deque[tuple[int, Future[None]]] = deque()
        self._budget, self._waiting = budget, 0
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        try:
            self._root = zarr.open_group(str(self.path), mode="r+")
        except FileNotFoundError:
            raise StoreError(f"store {self.path} does not exist here: every worker must see its folder at this path") from None
        self.attributes: dict[str, Any] = dict(self._root.attrs)
        first = self.attributes.get("schema") == 1 and "plan" in self.attributes
        self._form = Rows([one.name for one in streams_of(self._root)], self._streams) if first else None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown()
        if kind is None:
            self._check()

    def hidden(self, stream: str, place: tuple[int, int, int], state: Callable[[], Array], size: int) -> None:
        """Queue one hidden state, (token, channel), of `size` bytes at (row, step, block) of the stored axes."""
        name = self._form.stored.get(stream) if self._form else stream
        if name is not None:
            self._submit(size, lambda: self._write(f"hidden/{name}/hidden", place, state()))

    def row(
        self, row: int | tuple[int, ...], groups: Groups | Callable[[], Groups], *, done: bool = True, size: int = 0
    ) -> None:
        """Queue the other arrays of a row, or of one arm of a row; it is marked done once they are on disk. A function of
        `size` bytes that gives them is called in the writer's thread.
        """
        place = row if isinstance(row, tuple) else (row,)

        def write() -> None:
            arrays = groups() if callable(groups) else groups
            self._write_groups("", place, self._form.joined(arrays) if self._form else arrays)
            if done:
                self._write("done", place, np.uint8(1))
            if self.totals is not None and isinstance(row, int):
                self.totals.add(row, arrays)

        self._submit(size if callable(groups) else _size(groups), write)

    def bundle(self, number: int, rows: Sequence[int], groups: Groups) -> None:
        """Queue the moments of a bundle; its rows are marked done once they are on disk. Rows that were done count as not done
        while the moments are replaced.
        """

        def write() -> None:
            for row in rows:
                undo(self.path, row)
            self._write_groups("bundles/", (number,), self._form.joined(groups, leading=1) if self._form else groups)
            for row in rows:
                self._write("done", (row,), np.uint8(1))

        self._submit(_size(groups), write)

    def _write_groups(self, folder: str, place: tuple[int, ...], groups: Groups) -> None:
        for group, variables in groups.items():
            for name, array in variables.items():
                self._write(f"{folder}{group}/{name}", place, array)

    def _write(self, name: str, place: tuple[int, ...], value: Any) -> None:
        if name not in self._arrays:
            array = self._root[name]
            assert isinstance(array, zarr.Array)
            # shards of only fill values are written too, so that a missing shard is always an error
            self._arrays[name] = array.with_config({"write_empty_chunks": True})
        array = self._arrays[name]
        expected = array.shape[len(place) :]
        if np.shape(value) != expected:
            raise StoreError(f"store {self.path}: {name} was planned with shape {expected}; got {np.shape(value)}")
        try:
            array[place] = value
        except (ValueError, RuntimeError):  # zarr reads the old shard first, and it is damaged
            remove(self.path.joinpath(name, "c", *map(str, place)))
            array[place] = value

    def _submit(self, size: int, job: Job) -> None:
        # one job of any size is always accepted
        while self._jobs and (self._jobs[0][1].done() or self._waiting + size > self._budget):
            written, future = self._jobs.popleft()
            future.result()
            self._waiting -= written
        self._check()
        self._waiting += size
        self._jobs.append((size, self._thread.submit(self._do, job)))

    def _do(self, job: Job) -> None:
        """Do a job, unless an earlier one failed: a row is never marked done without its arrays."""
        if self._failure is None:
            try:
                job()
            except BaseException as error:
                self._failure = error

    def _check(self) -> None:
        if self._failure is None:
            return
        if isinstance(self._failure, OSError):
            raise StoreError(storage_message(self.path, self._failure)) from self._failure
        if isinstance(self._failure, InterpError):
            raise self._failure
        raise StoreError(f"store {self.path}: writing failed with {self._failure!r}") from self._failure


def _size(groups: Groups) -> int:
    return sum(array.nbytes for variables in groups.values() for array in variables.values())
