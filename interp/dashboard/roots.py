"""The stores that a dashboard may open: those under its root folders, without links that lead out of them.

They are listed from their attributes and the files that mark finished rows, without opening them.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from interp.base.errors import InputError
from interp.store.saved_results import result_names
from interp.store.schema import SCHEMA

DEPTH = 4  # levels of folders searched below a root
MOST = 500  # stores listed


@dataclasses.dataclass(frozen=True)
class Found:
    """A store as found in its folder, not opened yet."""

    name: str
    path: Path
    kind: str
    """trace, the experiment's kind, or `foreign`."""
    problem: str = ""
    """Why it cannot be opened; empty if it can."""
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def parse(arguments: Sequence[str]) -> tuple[Path, ...]:
    """The given folders and stores; by default `cache/` here, else this folder."""
    given = [Path(argument) for argument in arguments] or [Path("cache") if Path("cache").is_dir() else Path()]
    for path in given:
        if not path.is_dir():
            raise InputError(
                f"run must be a store or a folder of stores; {path} is not there (make one: interp trace --out {path})"
            )
    resolved = [path.resolve() for path in given]
    return tuple(dict.fromkeys(resolved))


def stores(roots: Sequence[Path]) -> list[Found]:
    """Every zarr folder under the roots, by name, without links that lead out of their root."""
    found: dict[str, Found] = {}
    for root in roots:
        for path in _walk(root):
            name = root.name if path == root else str(path.relative_to(root))
            if name in found and found[name].path != path:
                name = f"{root.name}/{name}"
            found.setdefault(name, _look(name, path, root))
            if len(found) >= MOST:
                return list(found.values())
    return sorted(found.values(), key=lambda store: store.name)


def _walk(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root, followlinks=True):
        path = Path(folder)
        if "zarr.json" in files:
            yield path
        ended = "zarr.json" in files or len(path.relative_to(root).parts) == DEPTH
        names[:] = [] if ended else sorted(name for name in names if not name.startswith(".") and inside(path / name, root))


def finished(store: Path) -> int:
    """Number of finished rows of a trace, or cells of an experiment: one file each."""
    return sum(len(files) for _, _, files in os.walk(store / "done" / "c"))


def inside(path: Path, root: Path) -> bool:
    """Whether a path, with links resolved, lies in a root."""
    return path.resolve().is_relative_to(root.resolve())


def _look(name: str, path: Path, root: Path) -> Found:
    """Kind and problem from the store's own attributes."""
    try:
        attributes = json.loads((path / "zarr.json").read_text(encoding="utf-8")).get("attributes", {})
        schema = attributes.get("schema")
    except (OSError, ValueError, AttributeError) as error:
        return Found(name, path, "foreign", f"its zarr.json cannot be read ({type(error).__name__}): the store is damaged")
    if schema is None:
        return Found(name, path, "foreign", "a zarr group, but not a store of interp: it has no schema")
    if schema != SCHEMA:
        return Found(name, path, "foreign", f"schema {schema}; this interp reads schema {SCHEMA}")
    if _leads_out(path, root):
        return Found(name, path, "foreign", "it holds a link that leads out of the dashboard's root folder")
    return Found(name, path, str(attributes.get("experiment", "trace")), attributes=attributes)


def _leads_out(store: Path, root: Path) -> bool:
    """Whether a group or array of a store is a link that leads out of it."""
    for folder in (store, *(Path(entry.path) for entry in os.scandir(store) if entry.is_dir())):
        if any(entry.is_symlink() and not inside(Path(entry.path), root) for entry in os.scandir(folder)):
            return True
    return False


def overview(stores: Sequence[Found]) -> pd.DataFrame:
    """One line per store: name, kind, model, rows, share done, results, created; or why it cannot be opened."""
    lines = [_line(store) for store in stores]
    table = pd.DataFrame(lines)
    return table if any(line["problem"] for line in lines) else table.drop(columns="problem")


def _line(store: Found) -> dict[str, Any]:
    line = {"store": store.name, "kind": store.kind, "model": "", "rows": "", "done": None, "results": "", "created": ""}
    if store.problem:
        return {**line, "problem": store.problem}
    try:
        what = "done" if store.kind == "trace" else "planned"
        planned = zarr.open_array(store.path / what, mode="r")
        total = planned.shape[0] if store.kind == "trace" else int(np.asarray(planned[...]).sum())
        done = finished(store.path)
        results = ", ".join(result_names(store.path))
    except Exception as error:  # a damaged store stays a line of the table, whatever error it raises
        return {**line, "problem": f"{type(error).__name__}: {error}"}
    made = str(store.attributes.get("provenance", {}).get("created", ""))[:16].replace("T", " ")
    rows = f"{done} of {total}" + ("" if done == total else " (unfinished)")
    share = done / total if total else 1.0
    model = str(store.attributes.get("plan", {}).get("model"))
    return {**line, "model": model, "rows": rows, "done": share, "results": results, "created": made, "problem": ""}
