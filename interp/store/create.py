"""Making a store, in one go: it is built in a temporary folder and renamed."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from filelock import FileLock, Timeout

from interp.errors import InterpWarning, StoreError
from interp.store.places import is_remote, move, remove
from interp.store.schema import SCHEMA, Schema, encoding

SHARD_WAIT = 60.0  # seconds for another shard to make the store


def create(path: Path, schema: Schema, attributes: dict[str, Any]) -> None:
    """Make the empty store of a run; nothing is at `path` until it is whole."""
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(partial)
        try:
            # coordinates that hold only fill values (one step: 0) are written too: a missing file is then always an error
            with zarr_quiet(), zarr.config.set({"array.write_empty_chunks": True}):
                _build(partial, schema, attributes)
            if is_remote(path):
                remove(path)  # what a killed process moved of a store
            move(partial, path)
        finally:
            remove(partial)


def _build(path: Path, schema: Schema, attributes: dict[str, Any]) -> None:
    prompts = len(schema.prompt_text)
    index = xr.Dataset(
        {
            "prompt_text": ("prompt", np.array(schema.prompt_text, dtype=object)),
            "seed": ("prompt", np.array(schema.seed, dtype=np.int64)),
        },
        coords={"prompt": np.arange(prompts)},
    )
    index.to_zarr(str(path), mode="w", zarr_format=3, consolidated=False, encoding=encoding(index))
    root = zarr.open_group(str(path), mode="r+")
    root.attrs.update({"schema": SCHEMA, **attributes})
    done: dict[str, Any] = {"dtype": "uint8", "fill_value": 0, "compressors": None, "dimension_names": ("prompt",)}
    root.create_array("done", shape=(prompts,), chunks=(1,), **done)
    for name, variable in schema.variables().items():
        group_path, _, variable_name = name.rpartition("/")
        if group_path == "hidden":  # one group a stream: hidden/image/hidden
            group_path, variable_name = name, "hidden"
        coordinates = schema.coordinates(name)
        if group_path not in root:
            how = encoding(coordinates)
            coordinates.to_zarr(str(path), group=group_path, mode="a", zarr_format=3, consolidated=False, encoding=how)
        along = [str(c) for c in coordinates.coords if c not in coordinates.dims]
        own = [c for c in along if set(coordinates[c].dims) <= set(variable.sizes)]
        group = root[group_path]
        assert isinstance(group, zarr.Group)
        variable.create(group, variable_name, {"coordinates": " ".join(own)} if own else {})


@contextlib.contextmanager
def writing_lock(path: Path, shard: tuple[int, int] | None = None) -> Iterator[Callable[[], None]]:
    """Hold the store for writing; a second writer is refused at once. The system lets go when a writer dies.

    Shards `(i, n)` of one n hold a lock each and write side by side; what is yielded lets the others in, and must be called
    when the store is there and read. A writer of the whole store, or of another n's shards, is refused while one is held.
    """
    if is_remote(path):
        warnings.warn(f"store {path} cannot be locked: see to it that no other process writes it", InterpWarning, stacklevel=4)
        yield lambda: None
        return
    path = path.resolve()  # one lock, whatever links lead to the store
    whole = FileLock(path.with_name(path.name + ".lock"))
    own = None if shard is None else FileLock(path.with_name(f"{path.name}.lock.{shard[0]}-of-{shard[1]}"))
    with storage_errors(path), contextlib.ExitStack() as held:
        path.parent.mkdir(parents=True, exist_ok=True)
        _hold(whole, path, SHARD_WAIT if shard else 0, "another process")
        held.callback(whole.release, force=True)
        for other in path.parent.glob(f"{glob.escape(path.name)}.lock.*-of-*"):
            index, _, count = other.name.rpartition(".lock.")[2].partition("-of-")
            if shard is None or (int(count) != shard[1]):
                _hold(FileLock(other), path, 0, f"shard {index}/{count}").release()
        if own is not None:
            _hold(own, path, 0, f"another process that has shard {shard[0]}/{shard[1]}" if shard else "")
            held.callback(own.release)
        kept = held.pop_all()
    with kept:
        yield (lambda: None) if shard is None else (lambda: whole.release(force=True))


def _hold(lock: FileLock, path: Path, wait: float, who: str) -> FileLock:
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise StoreError(
            f"store {path} is being written by {who}; wait for it, or give another --out "
            "(two writers would damage each other's rows)"
        ) from None
    return lock


def remove_leftovers(path: Path) -> None:
    """Remove what a killed process left half made beside the store; the caller holds the lock."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.partial-*"):
        remove(left)


def add_attributes(path: Path, name: str, value: Any) -> None:
    """Add an attribute to a store."""
    with storage_errors(path):
        zarr.open_group(str(path), mode="r+").attrs[name] = value


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusals inside into one clear error."""
    try:
        yield
    except OSError as error:
        raise StoreError(storage_message(path, error)) from error


def storage_message(path: Path, error: OSError) -> str:
    """What to do about a failed read or write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"store {path}: no space left to write ({error.strerror}); rows already done are kept: "
            "free some space and run the same command again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"store {path} cannot be written ({error.strerror}); change its permissions or give another --out"
    return f"store {path}: {error.strerror or error} (run the same command again; rows already done are kept)"


@contextlib.contextmanager
def zarr_quiet() -> Iterator[None]:
    """Without zarr's notes that its text type has no final specification: zarr 3 and xarray read it back."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="zarr")
        warnings.filterwarnings("ignore", message=".*Zarr (V3|format 3).*")
        yield
