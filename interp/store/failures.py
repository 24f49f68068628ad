"""Rows that could not be traced, and why: kept in the store, so that the rest goes on and they are not tried again unasked.

Each is a zarr group of its own, `failed/ROW`, with its reason as an attribute: whoever writes one touches no other file.
"""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import zarr

from interp.store.create import storage_errors
from interp.store.places import move, remove

FOLDER = "failed"


def note_failure(path: Path, row: int, reason: str) -> None:
    """Keep why a row failed, in place of an older reason; in one go."""
    target = path / FOLDER / str(row)
    partial = path / FOLDER / f".{row}-{os.getpid()}"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with storage_errors(path):
        if not (path / FOLDER / "zarr.json").exists():
            zarr.open_group(str(path), mode="r+").require_group(FOLDER)
        remove(partial)
        zarr.create_group(str(partial), attributes={"reason": reason, "at": now})
        remove(target)
        move(partial, target)


def forget_failure(path: Path, row: int) -> None:
    """The row is whole now."""
    with storage_errors(path):
        remove(path / FOLDER / str(row))


def failures(path: Path) -> dict[int, str]:
    """Rows that failed, and why."""
    found = {}
    for folder in sorted((path / FOLDER).glob("[0-9]*"), key=lambda entry: int(entry.name)):
        try:
            reason = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))["attributes"]["reason"]
        except (OSError, ValueError, KeyError):
            reason = "unknown: its record is damaged"
        found[int(folder.name)] = str(reason)
    return found
