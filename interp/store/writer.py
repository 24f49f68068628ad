"""Write rows in one thread behind a bounded queue: the model rarely waits for the disk, and memory use stays bounded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from interp.base.errors import InterpError, StoreError
from interp.store.create import storage_message
from interp.store.locations import remove
from interp.store.reader import undo
from interp.store.schema import Array

Job = Callable[[], None]


class Writer:
    """Writes into an existing store, as a context manager. A failed write raises at the next call."""

    def __init__(self, path: Path, *, budget: int = 256 * 2**20) -> None:
        self.path = path
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._jobs: queue.Queue[tuple[int, Job] | None] = queue.Queue()
        self._budget, self._waiting = budget, 0
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="interp-writer", daemon=True)

    def __enter__(self) -> Writer:
        try:
            self._root = zarr.open_group(str(self.path), mode="r+")
        except FileNotFoundError:
            raise StoreError(f"store {self.path} does not exist here: every worker must see its folder at this path") from None
        self.attributes: dict[str, Any] = dict(self._root.attrs)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._jobs.put(None)
        self._thread.join()
        if kind is None:
            self._check()

    def hidden(self, row: int, step: int, block: int, stream: str, state: Array) -> None:
        """Queue one hidden state, (token, channel); `step` and `block` are positions on the stored axes."""
        self._submit(state.nbytes, lambda: self._write(f"hidden/{stream}/hidden", (row, step, block), state))

    def row(self, row: int | tuple[int, ...], groups: dict[str, dict[str, Array]], *, done: bool = True) -> None:
        """Queue the other arrays of a row, or of one arm of a row; it is marked done once they are on disk."""
        place = row if isinstance(row, tuple) else (row,)
        size = sum(array.nbytes for variables in groups.values() for array in variables.values())

        def write() -> None:
            for group, variables in groups.items():
                for name, array in variables.items():
                    self._write(f"{group}/{name}", place, array)
            if done:
                self._write("done", place, np.uint8(1))

        self._submit(size, write)

    def bundle(self, number: int, rows: Sequence[int], groups: dict[str, dict[str, Array]]) -> None:
        """Queue the moments of a bundle; its rows are marked done once they are on disk. Rows that were done count as not done
        while the moments are replaced.
        """

        def write() -> None:
            for row in rows:
                undo(self.path, row)
            for group, variables in groups.items():
                for name, array in variables.items():
                    self._write(f"bundles/{group}/{name}", (number,), array)
            for row in rows:
                self._write("done", (row,), np.uint8(1))

        self._submit(sum(array.nbytes for variables in groups.values() for array in variables.values()), write)

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
        with self._changed:
            # one job of any size is always accepted
            self._changed.wait_for(lambda: self._failure or self._waiting == 0 or self._waiting + size <= self._budget)
            self._check()
            self._waiting += size
        self._jobs.put((size, job))

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            size, job = item
            failure: BaseException | None = None
            try:
                if self._failure is None:
                    job()
            except BaseException as error:
                failure = error
            with self._changed:
                self._waiting -= size
                self._failure = self._failure or failure
                self._changed.notify_all()

    def _check(self) -> None:
        if self._failure is None:
            return
        if isinstance(self._failure, OSError):
            raise StoreError(storage_message(self.path, self._failure)) from self._failure
        if isinstance(self._failure, InterpError):
            raise self._failure
        raise StoreError(f"store {self.path}: writing failed with {self._failure!r}") from self._failure
