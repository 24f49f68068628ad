"""Create a store atomically: it is built in a temporary folder and renamed. Also locks and storage errors."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from filelock import FileLock, Timeout

from interp.base.errors import InputError, InterpWarning, StoreError
from interp.store.locations import is_remote, move, remove
from interp.store.schema import SCHEMA, TOKENS, Schema
from interp.store.variable import encoding

SHARD_WAIT = 60.0  # seconds to wait while another shard creates the store


@contextlib.contextmanager
def replacing(path: Path, *, store: Path | None = None, tag: str = "") -> Iterator[Path]:
    """Yield a temporary name next to `store` (default: `path`). What is written there is moved to `path` at the end, or removed
    after an error. An OSError becomes a StoreError. Chunks that hold only fill values (one step: 0) are written too: a missing
    file is then always an error.
    """
    store = store or path
    partial = store.with_name(f"{store.name}.partial-{tag or os.getpid()}")
    with storage_errors(store), zarr_quiet(), zarr.config.set({"array.write_empty_chunks": True}):
        partial.parent.mkdir(parents=True, exist_ok=True)
        remove(partial)
        try:
            yield partial
            move(partial, path)
        finally:
            remove(partial)


def create(path: Path, schema: Schema, attributes: dict[str, Any]) -> None:
    """Create the empty store of a run; `path` does not exist until the store is complete."""
    index = xr.Dataset(rows_of(schema.prompt_text, schema.seed), {"prompt": np.arange(len(schema.prompt_text))})
    for name, own in schema.streams.items():
        if own.counted:
            index[f"{name}{TOKENS}"] = ("prompt", np.array(own.counted, dtype=np.int64))
    streams = [own.to_json() for own in schema.streams.values()]
    with new_store(path, index, {**attributes, "streams": streams}, ("prompt",)) as root:
        _add_variables(root, schema)


@contextlib.contextmanager
def new_store(path: Path, index: xr.Dataset, attributes: dict[str, Any], axes: tuple[str, ...]) -> Iterator[zarr.Group]:
    """Yield the root of a new store with its index, its attributes and `done` along `axes`; `path` does not exist before the
    end.
    """
    with replacing(path) as partial:
        write_dataset(index, str(partial))
        root = zarr.open_group(str(partial), mode="r+")
        root.attrs.update({"schema": SCHEMA, **attributes})
        done: dict[str, Any] = {"dtype": "uint8", "fill_value": 0, "compressors": None, "dimension_names": axes}
        root.create_array("done", shape=tuple(index.sizes[axis] for axis in axes), chunks=(1,) * len(axes), **done)
        yield root
        if is_remote(path):
            remove(path)  # an incomplete store that a killed process left


def rows_of(prompt_text: Sequence[str], seed: Sequence[int]) -> dict[str, Any]:
    """The variables of every store's root along prompt."""
    return {
        "prompt_text": ("prompt", np.array(prompt_text, dtype=object)),
        "seed": ("prompt", np.array(seed, dtype=np.int64)),
    }


def write_dataset(dataset: xr.Dataset, store: Any, group: str | None = None) -> None:
    """Write small arrays, with checksums, as a new zarr group."""
    mode: Any = "w" if group is None else "a"
    dataset.to_zarr(store, group=group, mode=mode, zarr_format=3, consolidated=False, encoding=encoding(dataset))


def texts_as_objects(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with every text variable as an array of objects, which all versions of zarr and NetCDF can hold."""
    texts = {n: (v.dims, v.to_numpy().astype(object)) for n, v in dataset.variables.items() if v.dtype.kind in "TUS"}
    return dataset.assign(texts)


def _add_variables(root: zarr.Group, schema: Schema) -> None:
    groups: dict[str, xr.Dataset] = {}
    for name, variable in schema.variables().items():
        group_path, _, variable_name = name.rpartition("/")
        if group_path not in groups:
            groups[group_path] = schema.coordinates(name)
            write_dataset(groups[group_path], root.store, group_path)
        coordinates = groups[group_path]
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
    if path.parent.exists() and not path.parent.is_dir():
        raise InputError(f"out must lie in a folder; {path.parent} is none: give another --out")
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
        if not Path(lock.lock_file).exists():
            raise StoreError(f"store {path}: nothing can be written in {path.parent}; give another --out") from None
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
    if isinstance(error, shutil.Error) and error.args:  # of a folder: one error for every file
        (*_, first), count = error.args[0][0], len(error.args[0])
        return f"store {path}: {first} ({count} files could not be copied); free some space or give another --out"
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
