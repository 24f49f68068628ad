"""Which stores a dashboard may open: those under the folders it was started with, and nothing that a link leads out to."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from interp.errors import InputError
from interp.store.schema import SCHEMA

DEPTH = 4  # folders below a root that are looked into
MOST = 500  # stores listed


@dataclasses.dataclass(frozen=True)
class Found:
    """A store as its folder shows it, not opened yet."""

    name: str
    path: Path
    kind: str
    """trace, the experiment's kind, or `foreign`."""
    problem: str = ""
    """Why it cannot be opened; empty if it can."""


def parse(arguments: Sequence[str]) -> tuple[Path, ...]:
    """The folders and stores given; without any, `cache/` here, or this folder."""
    given = [Path(argument) for argument in arguments] or [Path("cache") if Path("cache").is_dir() else Path()]
    for path in given:
        if not path.is_dir():
            raise InputError(
                f"run must be a store or a folder of stores; {path} is not there (make one: interp trace --out {path})"
            )
    resolved = [path.resolve() for path in given]
    return tuple(dict.fromkeys(resolved))


def stores(roots: Sequence[Path]) -> list[Found]:
    """Every zarr folder under the roots, by name; a link that leads out of its root is left out."""
    found: dict[str, Found] = {}
    for root in roots:
        for path in _walk(root, root, DEPTH):
            name = root.name if path == root else str(path.relative_to(root))
            if name in found and found[name].path != path:
                name = f"{root.name}/{name}"
            found.setdefault(name, _look(name, path, root))
            if len(found) >= MOST:
                return list(found.values())
    return sorted(found.values(), key=lambda store: store.name)


def _walk(folder: Path, root: Path, depth: int) -> Iterator[Path]:
    if (folder / "zarr.json").is_file():
        yield folder
        return
    if depth == 0:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if not entry.name.startswith(".") and entry.is_dir() and inside(Path(entry.path), root):
            yield from _walk(Path(entry.path), root, depth - 1)


def inside(path: Path, root: Path) -> bool:
    """Whether a path, its links followed, lies in a root."""
    return path.resolve().is_relative_to(root.resolve())


def _look(name: str, path: Path, root: Path) -> Found:
    """Kind and problem from the store's own attributes."""
    try:
        attributes = json.loads((path / "zarr.json").read_text(encoding="utf-8")).get("attributes", {})
        schema = attributes.get("schema")
    except (OSError, ValueError, AttributeError) as error:
        return Found(name, path, "foreign", f"its zarr.json cannot be read ({type(error).__name__}): the store is damaged")
    if schema is None:
        return Found(name, path, "foreign", "a zarr group, but not a store of interp: it names no schema")
    if schema != SCHEMA:
        return Found(name, path, "foreign", f"schema {schema}; this interp reads schema {SCHEMA}")
    if _leads_out(path, root):
        return Found(name, path, "foreign", "it holds a link that leads out of the folder the dashboard was started with")
    return Found(name, path, str(attributes.get("experiment", "trace")))


def _leads_out(store: Path, root: Path) -> bool:
    """Whether a store's groups or arrays are links to elsewhere."""
    for folder in (store, *(Path(entry.path) for entry in os.scandir(store) if entry.is_dir())):
        if any(entry.is_symlink() and not inside(Path(entry.path), root) for entry in os.scandir(folder)):
            return True
    return False
