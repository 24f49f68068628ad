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
    if not isinstance(name, str | Path):
        if hasattr(name, "fs"):  # a UPath
            return name
        raise InputError(f"a store's place must be a path or a URL, such as cache/run.zarr; got {name!r}")
    found = URL.fullmatch(str(name))
    if found is None:
        return expanded(Path(name))
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


def expanded(path: Path) -> Path:
    """The path with `~` as the home folder."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InputError(f"{path}: {error}") from None


def absolute(path: Path) -> Path:
    """The path resolved, for processes with another working folder. InputError for links that lead nowhere."""
    if is_remote(path):
        return path
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path} is a link to {os.readlink(path)}, which is not there; remove the link, or give another --out")
    try:
        return path.resolve()
    except (RuntimeError, OSError):
        raise InputError(f"{path} goes through a link that leads to itself; give another --out") from None


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
