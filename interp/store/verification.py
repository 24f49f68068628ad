"""Verify a store: read every byte of the done rows (shards have checksums) and check shapes, identity and values."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from interp.base.errors import InterpError, StoreError
from interp.base.prompts import same_text
from interp.base.seeds import OWN, SHARED, seed_of
from interp.store.create import storage_errors
from interp.store.locations import remove
from interp.store.reader import StoreReader, undo
from interp.store.saved_results import read_result, result_names
from interp.store.schema import Array

ROUNDING = 1e-5  # relative, between statistics of one row


@dataclasses.dataclass(frozen=True)
class Fault:
    """A failed check."""

    row: int | None
    """`None` for a fault outside single rows."""
    where: str
    reason: str


def verify(path: str | Path, on_row: Callable[[int, int], None] = lambda done, total: None) -> list[Fault]:
    """Every fault of a trace's store: checksums, missing files, shapes, row identity, and impossible values."""
    reader = StoreReader(path)
    found = [Fault(None, "plan", reason) for reason in _identity(reader)]
    arrays = dict(arrays_along(reader, "prompt"))
    rows = np.flatnonzero(reader.done).tolist()
    unreadable = [row for row in range(reader.done.size) if not reader.done[row] and _marked(reader.path, row)]
    found += [Fault(row, "done", "the row's mark is damaged: it counts as not done") for row in unreadable]
    for name, array in arrays.items():
        if array.shape[0] != reader.done.size:
            found.append(Fault(None, name, f"has {array.shape[0]} rows; the store has {reader.done.size}"))
    found += [*_bad_coordinates(reader), *_bad_bundles(reader)]
    for number, row in enumerate(rows):
        found += _check_row(reader, arrays, row)
        on_row(number + 1, len(rows))
    for name in result_names(reader.path):
        found += _unreadable(None, f"analysis/{name}", read_result, reader.path, name)
    return found + (_unreadable(None, "summary", lambda: reader.joined("summary").load()) if "summary" in reader else [])


def _unreadable(row: int | None, where: str, read: Callable[..., Any], *arguments: Any) -> list[Fault]:
    """The fault of a part that `read` cannot read; empty if it can."""
    try:
        read(*arguments)
    except InterpError as error:
        return [Fault(row, where, (error.reason if isinstance(error, StoreError) else "") or str(error))]
    return []


def _identity(reader: StoreReader) -> Iterator[str]:
    """Check that prompts and seeds are those of the plan."""
    plan = reader.attributes.get("plan", {})
    repeats, texts = int(plan.get("repeats", 1)), [str(text) for text in reader.prompt_text]
    prompts = texts[::repeats]
    digest = hashlib.sha256(json.dumps(prompts).encode()).hexdigest()[:16]
    if not str(plan.get("prompts", "")).endswith(digest):
        yield f"the stored prompts are not those of the plan ({plan.get('prompts')}); theirs is sha256 {digest}"
    seeds, counted = plan.get("seeds", SHARED), Counter[str]()
    for row, text in enumerate(texts):
        if text != prompts[row // repeats]:
            yield f"row {row} holds {text!r}; the plan's order has {prompts[row // repeats]!r} there"
            return
        key = same_text(text) if seeds == OWN else text
        wanted = seed_of(seeds, int(plan.get("seed", 0)), key, counted[key])
        counted[key] += 1
        if int(reader.seed[row]) != wanted:
            yield f"row {row} has seed {int(reader.seed[row])}; the plan gives it {wanted}"
            return


def bundle_size(reader: StoreReader) -> int:
    """Prompts per bundle; 0 where every prompt's statistics are kept."""
    return int(reader.attributes.get("plan", {}).get("record", {}).get("bundle", 0))


def arrays_along(reader: StoreReader, *axes: str) -> Iterator[tuple[str, zarr.Array[Any]]]:
    """Every array whose first axis is one of `axes` (prompt, bundle), by its path."""
    for name, node in _arrays(reader):
        dims = node.metadata.dimension_names or ()  # type: ignore[union-attr]
        if node.ndim > 1 and dims and dims[0] in axes:
            yield name, node


def _arrays(reader: StoreReader) -> Iterator[tuple[str, zarr.Array[Any]]]:
    """Every array of the trace, without results, summary and failures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            members = list(reader.root.members(max_depth=None))
        except ValueError as error:  # such as truncated JSON
            raise StoreError(f"store {reader.path}: an array's description is damaged ({error}); trace it again") from error
    for name, node in members:
        if isinstance(node, zarr.Array) and name.split("/")[0] not in ("analysis", "summary", "failed"):
            yield name, node


def _marked(path: Path, row: int) -> bool:
    """Whether a row has a nonzero `done` file; for a row read as not done, the file is damaged."""
    file = path / "done" / "c" / str(row)
    return file.exists() and file.read_bytes() != b"\x00"


def _check_row(reader: StoreReader, arrays: dict[str, zarr.Array[Any]], row: int) -> list[Fault]:
    statistics: dict[str, dict[str, Array]] = {}

    def read(name: str) -> None:
        stored = reader.stored(name)
        if name.startswith("hidden/"):  # a row's states may be larger than memory: read file by file
            for place in np.ndindex(*stored.shape[1:3]):
                stored[(row, *place)]
            return
        values = stored[row]
        if name.startswith("stats/"):
            group, _, own = name.rpartition("/")
            statistics.setdefault(group, {})[own] = values

    found = [fault for name in arrays for fault in _unreadable(row, name, read, name)]
    return found + [Fault(row, name, reason) for name, own in statistics.items() for reason in _impossible(reader, name, own)]


def _bad_coordinates(reader: StoreReader) -> Iterator[Fault]:
    """Unreadable arrays that all rows share."""
    along = {name for name, _ in arrays_along(reader, "prompt", "bundle")} | {"done"}
    for name, _ in _arrays(reader):
        if name not in along:
            yield from _unreadable(None, name, reader.stored(name).__getitem__, ...)


def _bad_bundles(reader: StoreReader) -> Iterator[Fault]:
    """Unreadable bundles, each as a fault of its first done row: a repair traces the whole bundle."""
    size = bundle_size(reader)
    for name, _ in arrays_along(reader, "bundle"):
        for start in range(0, reader.done.size, size):
            rows = start + np.flatnonzero(reader.done[start : start + size])
            if rows.size:
                yield from _unreadable(int(rows[0]), name, reader.stored(name).__getitem__, start // size)


def _impossible(reader: StoreReader, group: str, statistics: dict[str, Array]) -> Iterator[str]:
    """Check |mean| <= mean |x| <= max |x|, min |x| <= mean |x|, var >= 0, and NaN exactly where absent, for one row of a stream
    (of all streams in schema 1).
    """
    if not {"mean", "mean_abs", "max_abs", "min_abs", "var"} <= set(statistics):
        return
    present = np.asarray(reader.stored(f"{group}/present")[...]).astype(bool)[None, ..., None]
    for name, values in statistics.items():
        if name != "median_abs" and not np.array_equal(np.isnan(values), np.broadcast_to(~present, values.shape)):
            yield f"{name} is NaN where it should be a number, or the other way round"
            return
    mean, size = np.abs(statistics["mean"]), statistics["mean_abs"]
    slack = ROUNDING * np.nan_to_num(statistics["max_abs"]) + 1e-12
    with np.errstate(invalid="ignore"):
        for name, wrong in (
            ("|mean| > mean |x|", mean > size + slack),
            ("mean |x| > max |x|", size > statistics["max_abs"] + slack),
            ("min |x| > mean |x|", statistics["min_abs"] > size + slack),
            ("variance < 0", statistics["var"] < 0),
        ):
            if bool(np.any(wrong)):
                yield f"{name} somewhere: these values cannot be statistics of one state"


def forget(path: Path, faults: list[Fault]) -> list[int]:
    """Undo faulty parts so that a trace repeats them: mark their rows as not done, remove faulty results and the summary.
    Return the rows. The caller holds the lock.
    """
    rows = sorted({fault.row for fault in faults if fault.row is not None})
    with storage_errors(path):
        for row in rows:
            undo(path, row)
        for fault in faults:
            if fault.row is None and fault.where.startswith(("analysis/", "summary")):
                remove(path / fault.where)
        if rows:
            remove(path / "summary")
    return rows
