"""Failed rows and their reasons, kept in the store: the other rows are traced, and failed rows are retried only on request.

Each failed row is a zarr group, `failed/ROW`, with the reason as an attribute. Writing one changes no other file.
"""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import zarr

from interp.store.create import storage_errors
from interp.store.locations import move, remove

FOLDER = "failed"


def note_failure(path: Path, row: int, reason: str) -> None:
    """Store the reason why a row failed, atomically; it replaces an earlier reason."""
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
    """Remove the note of a row that is complete now."""
    with storage_errors(path):
        remove(path / FOLDER / str(row))


def failures(path: Path) -> dict[int, str]:
    """Failed rows and their reasons."""
    found = {}
    for folder in sorted((path / FOLDER).glob("[0-9]*"), key=lambda entry: int(entry.name)):
        try:
            reason = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))["attributes"]["reason"]
        except (OSError, ValueError, KeyError):
            reason = "unknown: its record is damaged"
        found[int(folder.name)] = str(reason)
    return found
