"""Open a store's zarr group: missing and damaged files raise StoreError with the rows and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from interp.base.errors import InputError, InterpError, StoreError
from interp.store.create import storage_message
from interp.store.locations import is_remote
from interp.store.schema import READABLE, Array


class StrictStore(WrapperStore[Store]):
    """A store in which a missing chunk raises StoreError; only `done` may be sparse."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes of a key."""
        value = await super().get(key, prototype, byte_range)
        if "/c/" in key and not key.startswith("done/") and not value:
            raise StoreError(f"the file {key} is {'missing' if value is None else 'empty'}")
        return value


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
    if found not in READABLE:
        newer = isinstance(found, int) and found > max(READABLE)
        raise StoreError(
            f"store {path} has schema {found}; this interp reads schema {' and '.join(map(str, READABLE))}: "
            + ("install a newer interp" if newer else "it cannot be read")
        )


def _span(key: Any) -> str:
    """One index or a range of indices as text."""
    if not isinstance(key, slice):
        return str(key)
    first, last = key.start or 0, (key.stop or 1) - 1
    return str(first) if first >= last else f"{first}..{last}"
