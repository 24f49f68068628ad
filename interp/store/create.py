"""Create a store atomically: it is built in a temporary folder and renamed. Also locks and storage errors."""

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

from interp.base.errors import InterpWarning, StoreError
from interp.store.locations import is_remote, move, remove
from interp.store.schema import SCHEMA, Schema, encoding

SHARD_WAIT = 60.0  # seconds to wait while another shard creates the store


def create(path: Path, schema: Schema, attributes: dict[str, Any]) -> None:
    """Create the empty store of a run; `path` does not exist until the store is complete."""
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(partial)
        try:
            # coordinates that hold only fill values (one step: 0) are written too: a missing file is then always an error
            with zarr_quiet(), zarr.config.set({"array.write_empty_chunks": True}):
                _build(partial, schema, attributes)
            if is_remote(path):
                remove(path)  # an incomplete store that a killed process left
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
        if group_path == "hidden":  # one group per stream: hidden/image/hidden
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
    """Lock the store for writing; a second writer raises StoreError at once. The lock is released when a writer dies.

    Shards `(i, n)` with the same n hold one lock each and write in parallel. Call the yielded function once the store exists
    and is read: it admits the other shards. While a shard holds its lock, writers of the whole store or of shards with
    another n are refused.
    """
    if is_remote(path):
        warnings.warn(f"store {path} cannot be locked: make sure no other process writes to it", InterpWarning, stacklevel=4)
        yield lambda: None
        return
    path = path.resolve()  # one lock per store, also through symbolic links
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
    """Remove partial folders that a killed process left next to the store; the caller holds the lock."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.partial-*"):
        remove(left)


def add_attributes(path: Path, name: str, value: Any) -> None:
    """Add an attribute to a store."""
    with storage_errors(path):
        zarr.open_group(str(path), mode="r+").attrs[name] = value


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Convert an OSError raised inside into a StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(storage_message(path, error)) from error


def storage_message(path: Path, error: OSError) -> str:
    """The error message of a failed read or write, with advice."""
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
    """Silence zarr's warnings that its text type has no final specification: zarr 3 and xarray read it back."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="zarr")
        warnings.filterwarnings("ignore", message=".*Zarr (V3|format 3).*")
        yield
