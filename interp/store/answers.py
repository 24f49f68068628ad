"""Answers of a study: one appended JSON line each. A line that a crash cut short is skipped with a warning."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from interp.base.errors import InterpWarning, StoreError
from interp.store.create import storage_errors

FIELDS = ("rater", "pair", "detail", "colour", "prompt")  # fields of an answer
WAIT = 10.0  # seconds to wait while another rater writes


def append_answer(path: Path, answer: Mapping[str, Any]) -> None:
    """Append one answer to a file and sync it to disk; safe with concurrent writers."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{path}.lock", timeout=WAIT), path.open("ab+") as file:
                if file.tell() and not _ends_with_newline(file):
                    file.write(b"\n")
                file.write((json.dumps(dict(answer), ensure_ascii=False) + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
        except Timeout:
            raise StoreError(f"{path} has been locked by another writer for more than {WAIT:.0f} s; answer again") from None


def _ends_with_newline(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Every valid answer of a file, in order; none if there is no file. Invalid lines are skipped with a warning."""
    found, damaged = parse_answers(path)
    if damaged:
        warnings.warn(f"{path}: {damaged} lines are not answers and were left out", InterpWarning, stacklevel=2)
    return found


def parse_answers(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The answers of a file, and the number of invalid lines."""
    if not path.exists():
        return [], 0
    with storage_errors(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [_answer(line) for line in lines if line.strip()]
    whole = [answer for answer in found if answer is not None]
    return whole, len(found) - len(whole)


def _answer(line: str) -> dict[str, Any] | None:
    try:
        answer = json.loads(line)
    except json.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) and all(field in answer for field in FIELDS) else None
