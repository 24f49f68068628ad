"""A cache of scores: one row per picture, prompt, metric and weights, in a small sqlite file.

A damaged row is computed again; a cache that cannot be written is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from interp.base.errors import InputError
from interp.metrics.preprocess import as_bytes, paired
from interp.store.schema import Array

Compute = Callable[[Array, Sequence[str]], Array]
"""One batch: pictures (picture, y, x, rgb), prompts -> (picture) or (picture, feature)."""
BATCH = 16
FORMULA = "1"
"""Increase it when a metric or the preparation of pictures changes: earlier scores are then computed again."""


class ScoreCache:
    """Scores by key. `path` is created if missing; without one, nothing is kept."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as file:
                file.execute("create table if not exists scores (key text primary key, value blob, checksum integer)")
        except (sqlite3.Error, OSError) as error:
            raise InputError(
                f"cache {self.path} cannot be opened as a cache of scores ({error}); delete it or name another"
            ) from None

    def read(self, key: str) -> Array | None:
        """Read a score, (feature) float64; None if it is missing or damaged."""
        if self.path is None:
            return None
        try:
            with self._open() as file:
                row = file.execute("select value, checksum from scores where key = ?", (key,)).fetchone()
        except sqlite3.Error:
            return None
        if row is None or not isinstance(row[0], bytes) or zlib.crc32(row[0]) != row[1] or len(row[0]) % 8:
            return None
        return np.frombuffer(row[0], np.float64)

    def write(self, keys: Sequence[str], values: Array) -> None:
        """Write scores, (row, feature), one row per key."""
        if self.path is None:
            return
        blobs = [np.ascontiguousarray(value, np.float64).tobytes() for value in values]
        rows = [(key, blob, zlib.crc32(blob)) for key, blob in zip(keys, blobs, strict=True)]
        with contextlib.suppress(sqlite3.Error), self._open() as file:  # such as a full disk: scores do not need the cache
            file.executemany("insert or replace into scores values (?, ?, ?)", rows)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(str(self.path), timeout=30)) as file, file:
            yield file


def scored(
    metric: str,
    weights: str,
    compute: Compute,
    images: Array,
    prompts: Sequence[str],
    *,
    cache: ScoreCache,
    width: int | None = None,
    batch: int = BATCH,
) -> Array:
    """Score pictures with `compute` in batches, or from the cache where possible: (picture), or (picture, width).

    `weights` is their sha256. The key covers them, the metric's name and formula, the picture's bytes and size, and the prompt.
    """
    images = as_bytes(images)
    paired(images, prompts)
    keys = [key_of(metric, weights, image, prompt) for image, prompt in zip(images, prompts, strict=True)]
    found: dict[str, Array] = {}
    for key in dict.fromkeys(keys):
        kept = cache.read(key)
        if kept is not None and len(kept) == (width or 1):
            found[key] = kept
    missing = list({key: row for row, key in enumerate(keys) if key not in found}.values())
    for start in range(0, len(missing), batch):
        rows = missing[start : start + batch]
        values = np.asarray(compute(images[rows], [prompts[row] for row in rows]), np.float64).reshape(len(rows), width or 1)
        cache.write([keys[row] for row in rows], values)
        found |= {keys[row]: value for row, value in zip(rows, values, strict=True)}
    table = np.array([found[key] for key in keys]).reshape(len(keys), width or 1)
    return table if width else table[:, 0]


def key_of(metric: str, weights: str, image: Array, prompt: str) -> str:
    """The key of one picture, (y, x, rgb) uint8, and its prompt."""
    digest = hashlib.sha256()
    for part in (FORMULA, metric, weights, prompt, str(image.shape)):
        digest.update(part.encode() + b"\0")
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
