"""Locations of stores: folders, or fsspec URLs (s3://, gs://, memory://) used like folders (universal-pathlib)."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from interp.base.errors import InputError

URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,3}(?!/)(.*)")


def located(name: str | Path) -> Path:
    """A path, or for a URL an object with the methods of a path."""
    found = URL.fullmatch(str(name))
    if found is None or not isinstance(name, str | Path):
        return Path(name) if isinstance(name, str) else name
    if found[1] in ("file", "local"):
        return Path(f"/{found[2]}")
    try:
        from upath import UPath
    except ImportError:
        raise InputError(f"{name} is a URL, which needs universal-pathlib: pip install 'interp[remote]'") from None
    try:  # pathlib collapses double slashes: restore s3:/bucket to s3://bucket
        made: Any = UPath(f"{found[1]}://{found[2]}")
        made.fs  # noqa: B018  (imports the protocol's package)
    except (ImportError, ValueError) as error:
        raise InputError(f"{name}: {error}") from None
    return made  # type: ignore[no-any-return]


def absolute(path: Path) -> Path:
    """The path resolved, for processes with another working folder."""
    return path if is_remote(path) else path.resolve()


def is_remote(path: Path) -> bool:
    """Whether a location is a URL: no locks and no atomic renames."""
    return not isinstance(path, Path)


def exists(path: Path) -> bool:
    """Whether a store exists. At a URL it must have its zarr.json, which is written last."""
    return (path / "zarr.json").exists() if is_remote(path) else path.exists()


def remove(path: Path) -> None:
    """Remove a file or a folder with its content, if it exists."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
    elif is_remote(path):
        path.fs.rm(path.path, recursive=True)  # type: ignore[attr-defined]
    else:
        shutil.rmtree(path, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Move a file or folder to a new location: atomically on a disk; at a URL file by file, the zarr.json last."""
    if not is_remote(target):
        os.replace(source, target)
        return
    files = [file for file in source.rglob("*") if file.is_file()]
    for file in sorted(files, key=lambda file: file == source / "zarr.json"):
        new = target / file.relative_to(source)
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(file.read_bytes())
    remove(source)
