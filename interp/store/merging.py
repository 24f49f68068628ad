"""Merge stores of one plan: the files of their rows are copied, `done` last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from interp.base.errors import InputError, StoreError
from interp.base.same_plan import check_same
from interp.store.create import remove_leftovers, replacing, storage_errors, writing_lock, zarr_quiet
from interp.store.failures import failures, note_failure
from interp.store.locations import is_remote, located
from interp.store.reader import StoreReader, undo
from interp.store.summary import write_summary
from interp.store.verification import arrays_along, bundle_size


def merge(out: str | Path, parts: Sequence[str | Path], on_row: Callable[[int], None] = lambda row: None) -> int:
    """Copy the done rows of stores of one plan into `out` and return the number of copied rows. A missing `out` is created from
    the first part. Rows that `out` already holds are kept. Stores of bundles are merged bundle by bundle.
    """
    out, sources = located(out), [StoreReader(part) for part in parts]
    for path in (out, *(source.path for source in sources)):
        if is_remote(path):
            raise InputError(f"merge joins folders; copy {path} to a disk first")
    if not sources:
        raise InputError("parts must be one or more stores of the same plan; got none")
    for source in sources[1:]:
        check_same(sources[0].attributes["plan"], source.attributes["plan"], str(source.path))
    kinds = {source.joint for source in sources} | ({StoreReader(out).joint} if out.exists() else set())
    if len(kinds) > 1:
        raise InputError("parts must have one schema: a store of schema 1 joins only others of schema 1")
    if any(source.path.resolve() == out.resolve() for source in sources):
        raise InputError(f"parts must not hold the store that is written, {out}")
    copied = 0
    with writing_lock(out), storage_errors(out), zarr_quiet():
        remove_leftovers(out)
        if not out.exists():
            _skeleton(sources[0].path, out)
        target = StoreReader(out)
        check_same(target.attributes["plan"], sources[0].attributes["plan"], str(out))
        done = target.done.copy()
        arrays, bundled = ([name for name, _ in arrays_along(target, axis)] for axis in ("prompt", "bundle"))
        size = bundle_size(target)
        for source in sources:
            for start in range(0, done.size, size or 1):
                here = range(start, min(start + (size or 1), done.size))
                rows = [row for row in here if source.done[row]]
                kept = [row for row in here if done[row]]
                if not rows or not set(kept) < set(rows):  # moments cover the whole bundle: keep the one with more rows
                    continue
                for row in kept:
                    undo(out, row)
                for row in rows:
                    _copy(source.path, out, arrays, row)
                if size:
                    _copy(source.path, out, bundled, start // size)
                for row in rows:  # `done` last: an interrupted copy is not a row
                    _copy(source.path, out, ["done"], row)
                    copied += not done[row]
                    done[row] = True
                    on_row(row)
        for source in sources:
            for row, reason in failures(source.path).items():
                if not done[row]:
                    note_failure(out, row, reason)
        if done.all():
            write_summary(out)
    return copied


def _skeleton(source: Path, out: Path) -> None:
    """Copy a store without its rows, summary and results."""
    along = {f"{name}/c" for name, _ in arrays_along(StoreReader(source), "prompt", "bundle")}
    left_out = along | {"done/c", "summary", "analysis", "failed"}

    def rows(folder: str, names: list[str]) -> set[str]:
        here = Path(folder).relative_to(source)
        return {name for name in names if (here / name).as_posix() in left_out}

    with replacing(out) as partial:
        shutil.copytree(source, partial, ignore=rows)


def _copy(source: Path, out: Path, arrays: Sequence[str], index: int) -> None:
    """Copy the files of one index along the first axis of each array."""
    for name in arrays:
        place = Path(name) / "c" / str(index)
        if not (source / place).exists():
            raise StoreError(f"store {source}: {place} is missing; interp verify {source} --repair traces it again")
        if (source / place).is_dir():
            shutil.copytree(source / place, out / place, dirs_exist_ok=True)
        else:
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            temporary = (out / place).with_name(f"{index}.partial")  # one writer: overwrites leftovers of a killed one
            shutil.copyfile(source / place, temporary)
            os.replace(temporary, out / place)
