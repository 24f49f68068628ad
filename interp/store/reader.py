"""Read a store: lazy xarray Datasets of the done rows.

zarr reads a missing chunk as its fill value; here a missing or damaged shard of a done row raises StoreError.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import dask.array
import numpy as np
import xarray as xr
import zarr

from interp.base.errors import InputError, StoreError
from interp.base.streams import Stream
from interp.store import first_schema
from interp.store.locations import located
from interp.store.opening import Guarded, open_root
from interp.store.schema import STATISTICS, TOKENS, Array

Row = TypeVar("Row")
DONE = b"\x01"  # content of a row's `done` file, which is not compressed
COMPRESSED = 8  # bytes; zstd's own header is longer


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
        self.of_rows |= {name: self.stored(name)[...] for name in self.root if name.endswith(TOKENS)}
        self._check_whole()

    def _check_whole(self) -> None:
        """Check that every array of the plan exists."""
        record = self.attributes.get("plan", {}).get("record", {})
        wanted = ["outputs/image", "outputs/latents"]
        folded = "bundles/" if record.get("bundle") else ""
        for end in [""] if self.joint else [f"/{stream.name}" for stream in self.streams]:
            wanted += [f"{folded}stats{end}/{name}" for name in (*STATISTICS, "median_abs")] if record.get("stats") else []
            wanted += [f"{folded}gates{end}/alpha"] if record.get("gates") else []
            wanted += [f"{folded}gates{end}/{name}" for name in ("shift", "scale")] if record.get("modulation") else []
            if record.get("branches"):
                wanted += [f"branches{end}/{name}" for name in ("branch", "embedding", "position")]
        wanted += ["hidden"] if record.get("hidden") else []
        wanted += ["frames"] if record.get("frames") else []
        wanted += [f"recorded/{own['name']}/value" for own in record.get("recorders", [])]
        for name in wanted:
            if not (self.path / name / "zarr.json").exists():
                raise StoreError(f"store {self.path} is damaged: its plan has {name}, which is missing; trace it again")

    @property
    def joint(self) -> bool:
        """Whether groups hold all streams along an axis: schema 1."""
        return bool(self.attributes["schema"] == 1)

    @functools.cached_property
    def streams(self) -> tuple[Stream, ...]:
        """The streams of the run."""
        if self.joint:
            return first_schema.streams_of(self.root)
        return tuple(Stream.from_json({k: v for k, v in own.items() if k != "sizes"}) for own in self.attributes["streams"])

    def of_stream(self, group: str, stream: str) -> xr.Dataset:
        """A stream's part of stats, gates, branches or summary."""
        if self.joint:
            return self.dataset(group).sel(stream=stream)
        return self.dataset(f"{group}/{stream}").assign_coords(stream=stream)

    def joined(self, group: str) -> xr.Dataset:
        """All streams of such a group along an axis `stream`."""
        if self.joint:
            return self.dataset(group)
        return side_by_side({one.name: self.dataset(f"{group}/{one.name}") for one in self.streams})

    @property
    def summary_rows(self) -> int | None:
        """The number of rows in the stored summary, if there is one."""
        return self._group("summary").attrs.get("rows") if "summary" in self else None  # type: ignore[return-value]

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


def side_by_side(parts: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """The Datasets of streams along an axis `stream`: NaN in the channels that a narrower stream lacks."""
    names = xr.DataArray(np.array(list(parts), dtype=object), dims="stream", name="stream")
    how: Any = {"data_vars": "all", "coords": "minimal", "compat": "override", "join": "outer", "combine_attrs": "override"}
    joined = xr.concat(list(parts.values()), names, **how)
    return joined.transpose("prompt", "bundle", "moment", "step", "block", "stream", "gate", "channel", missing_dims="ignore")


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


def _place(name: str) -> tuple[int, str]:
    """Sort key of a variable in its Dataset: the schema's order, then other variables by name."""
    order = (*STATISTICS, "median_abs", "alpha", "shift", "scale", "hidden", "image", "latents")
    return (order.index(name) if name in order else len(order), name)
