"""Read a store: lazy xarray Datasets of the done rows.

zarr reads a missing chunk as its fill value; here a missing or damaged shard of a done row raises StoreError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import dask.array
import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from interp.base.errors import InputError, InterpError, StoreError
from interp.store.create import storage_message
from interp.store.locations import is_remote, located
from interp.store.schema import SCHEMA, STATISTICS, Array

Row = TypeVar("Row")
DONE = b"\x01"  # content of a row's `done` file, which is not compressed
COMPRESSED = 8  # bytes; zstd's own header is longer


class StrictStore(WrapperStore[Store]):
    """A store in which a missing chunk raises StoreError; only `done` may be sparse."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes of a key."""
        value = await super().get(key, prototype, byte_range)
        if "/c/" in key and not key.startswith("done/") and not value:
            raise StoreError(f"the file {key} is {'missing' if value is None else 'empty'}")
        return value


class OpenStore:
    """A store of a run or an experiment: its attributes and its arrays."""

    def __init__(self, path: str | Path) -> None:
        self.path = located(path)
        self.root = open_root(self.path)
        self.attributes: dict[str, Any] = dict(self.root.attrs)
        self._arrays: dict[str, Guarded] = {}

    def stored(self, name: str) -> Guarded:
        """One stored array with all its rows, read with zarr's indexing."""
        if name not in self._arrays:
            try:
                array = self.root[name]
            except KeyError:
                raise StoreError(f"store {self.path} has no {name}: it is damaged, or interp did not write it") from None
            except ValueError as error:
                told = f"store {self.path}: the description of {name} is damaged ({error}); trace it again"
                raise StoreError(told) from None
            self._arrays[name] = Guarded(self.path, name, cast("zarr.Array[Any]", array))
        return self._arrays[name]

    def __contains__(self, group: str) -> bool:
        return group in self.root


class StoreReader(OpenStore):
    """The store of a run: its done rows, and its groups as Datasets."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        if "experiment" in self.attributes:
            kind = self.attributes["experiment"]
            raise InputError(f"{self.path} is an experiment ({kind}), not a traced run; open it with interp.open_experiment")
        self.done = read_done(self.stored("done").array)
        self.prompt_text = np.asarray(self.stored("prompt_text")[...], dtype=object)
        self.seed = self.stored("seed")[...]
        self.of_rows = {"prompt_text": self.prompt_text, "seed": self.seed}
        self.of_rows |= {name: self.stored(name)[...] for name in {"text_tokens"} & set(self.root)}
        self._check_whole()

    def _check_whole(self) -> None:
        """Check that every array of the plan exists."""
        record = self.attributes.get("plan", {}).get("record", {})
        wanted = ["outputs/image", "outputs/latents"]
        folded = "bundles/" if record.get("bundle") else ""
        wanted += [f"{folded}stats/{name}" for name in (*STATISTICS, "median_abs")] if record.get("stats") else []
        wanted += [f"{folded}gates/alpha"] if record.get("gates") else []
        wanted += [f"{folded}gates/shift", f"{folded}gates/scale"] if record.get("modulation") else []
        wanted += ["branches/branch", "branches/embedding", "branches/position"] if record.get("branches") else []
        wanted += ["hidden"] if record.get("hidden") else []
        wanted += [f"recorded/{own['name']}/value" for own in record.get("recorders", [])]
        for name in wanted:
            if not (self.path / name / "zarr.json").exists():
                raise StoreError(f"store {self.path} is damaged: its plan has {name}, which is missing; trace it again")

    def dataset(self, group: str) -> xr.Dataset:
        """A group as a lazy Dataset of the done rows, with prompt_text and seed as coordinates."""
        node = self._group(group)
        variables: dict[str, xr.Variable] = {}
        named = set(str(node.attrs.get("coordinates", "")).split())
        for name, array in sorted(node.arrays(), key=lambda pair: _place(pair[0])):
            data = self._lazy(f"{group}/{name}", array)
            attributes = {key: value for key, value in array.attrs.items() if key not in ("coordinates", "_FillValue")}
            named |= set(str(array.attrs.get("coordinates", "")).split())
            variables[name] = xr.Variable(array.metadata.dimension_names or (), data, attributes)  # type: ignore[union-attr]
        coordinates = {name: v for name, v in variables.items() if name in v.dims or name in named}
        data_variables = {name: v for name, v in variables.items() if name not in coordinates}
        dataset = xr.Dataset(data_variables, coordinates, attrs={k: v for k, v in node.attrs.items() if k != "coordinates"})
        if "prompt" not in dataset.dims:
            return dataset
        dataset = dataset.assign_coords({name: ("prompt", values) for name, values in self.of_rows.items()})
        return dataset if self.done.all() else dataset.isel(prompt=np.flatnonzero(self.done))

    def _group(self, group: str) -> zarr.Group:
        try:
            node = self.root[group]
            list(node.arrays()) if isinstance(node, zarr.Group) else None
        except Exception as error:  # damaged metadata: JSON and zarr raise errors of any type
            raise StoreError(f"store {self.path}: group {group} is damaged ({type(error).__name__}: {error})") from error
        assert isinstance(node, zarr.Group)
        return node

    def _lazy(self, name: str, array: zarr.Array[Any]) -> Any:
        """Coordinates and flags as numpy; all other arrays as dask, one dask chunk per shard."""
        guarded = Guarded(self.path, name, array)
        if array.ndim < 2 or array.dtype == bool:
            values = guarded[...]
            return values.astype(object) if values.dtype.kind == "T" else values
        return dask.array.from_array(  # type: ignore[no-untyped-call]
            guarded, chunks=array.shards or array.chunks, name=False, asarray=False
        )


class Guarded:
    """A zarr array whose read errors name the unreadable rows and the remedy."""

    def __init__(self, path: Path, name: str, array: zarr.Array[Any]) -> None:
        self.path, self.name, self.array = path, name, array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, key: Any) -> Array:
        try:
            return np.asarray(self.array[key])
        except InterpError as error:
            raise self._unreadable(key, str(error)) from None
        except PermissionError as error:
            raise StoreError(storage_message(self.path, error).replace("written", "read")) from error
        except Exception as error:  # codecs raise errors of any type on damaged bytes
            raise self._unreadable(key, f"{type(error).__name__}: {error}") from error

    def _unreadable(self, key: Any, reason: str) -> StoreError:
        rows = ""
        if key is not Ellipsis and self.array.ndim > 1:
            axis = (self.array.metadata.dimension_names or ("prompt",))[0]  # type: ignore[union-attr]
            rows = f" of {axis} {_span(key[0] if isinstance(key, tuple) else key)}"
        advice = "All rows share this file: restore it from a copy, or trace the store again"
        if self.array.ndim > 1:
            advice = f"Other rows are not affected; interp verify {self.path} --repair traces those prompts again"
        error = StoreError(
            f"store {self.path}: {self.name}{rows} cannot be read ({reason}); the file is missing or damaged. {advice}"
        )
        error.reason = reason
        return error


def is_done(path: Path, *place: int) -> bool:
    """Whether a row, or an arm of a row, is done. Reads the file each time, since other processes write too."""
    file = path.joinpath("done", "c", *map(str, place))
    if not file.exists():
        return False
    content = file.read_bytes()
    return content == DONE or len(content) > COMPRESSED  # earlier versions compressed it


def read_done(array: zarr.Array[Any]) -> Array:
    """Booleans of done rows or cells; an unreadable mark counts as not done."""
    try:
        return np.asarray(np.asarray(array[...]) == 1)
    except Exception:  # at least one damaged mark: read them one by one
        found = np.zeros(array.shape, bool)
        for place in np.ndindex(*array.shape):
            with contextlib.suppress(Exception):
                found[place] = array[place] == 1
        return found


def undo(path: Path, row: int) -> None:
    """Mark a row as not done."""
    path.joinpath("done", "c", str(row)).unlink(missing_ok=True)


def read_ahead(rows: Iterable[Row], read: Callable[[Row], Array]) -> Iterator[Array]:
    """Yield `read(row)` of every row in order; the next row is read while the caller uses the current one."""
    with ThreadPoolExecutor(1, "interp-reader") as pool:
        coming: Future[Array] | None = None
        for row in rows:
            current, coming = coming, pool.submit(read, row)
            if current is not None:
                yield current.result()
        if coming is not None:
            yield coming.result()


def _span(key: Any) -> str:
    """One index or a range of indices as text."""
    if not isinstance(key, slice):
        return str(key)
    first, last = key.start or 0, (key.stop or 1) - 1
    return str(first) if first >= last else f"{first}..{last}"


def _place(name: str) -> tuple[int, str]:
    """Sort key of a variable in its Dataset: the schema's order, then other variables by name."""
    order = (*STATISTICS, "median_abs", "alpha", "shift", "scale", "hidden", "image", "latents")
    return (order.index(name) if name in order else len(order), name)


def open_root(path: Path) -> zarr.Group:
    """Open the root group of a store that interp wrote."""
    try:
        missing, whole = not path.exists(), path.is_dir() and (path / "zarr.json").exists()
    except OSError as error:
        raise InputError(f"store {str(path)[:80]!r} cannot be opened: {error.strerror}") from None
    if missing:
        raise InputError(f"store {path} does not exist; make one with `interp trace --out {path}`")
    if not whole:
        raise InputError(f"{path} is not a store: it has no zarr.json (give the .zarr folder that `interp trace` wrote)")
    try:
        kept: Store = FsspecStore.from_url(str(path), read_only=True) if is_remote(path) else LocalStore(path, read_only=True)
        root = zarr.open_group(StrictStore(kept), mode="r")
    except OSError as error:
        raise StoreError(storage_message(path, error)) from error
    except Exception as error:
        raise StoreError(f"{path} is not a readable zarr group ({type(error).__name__}: {error})") from error
    _check_schema(path, dict(root.attrs))
    return root


def _check_schema(path: Path, attributes: dict[str, Any]) -> None:
    found = attributes.get("schema")
    if found is None:
        raise InputError(f"{path} is a zarr group but not an interp store: it has no schema attribute")
    if found != SCHEMA:
        raise StoreError(
            f"store {path} has schema {found}; this interp reads schema {SCHEMA}: "
            + ("install a newer interp" if isinstance(found, int) and found > SCHEMA else "it cannot be read")
        )
