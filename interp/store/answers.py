"""Answers of a study: one JSON line each, appended; a line that a crash cut short is skipped, and said."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from interp.errors import InterpWarning, StoreError
from interp.store.create import storage_errors

FIELDS = ("rater", "pair", "detail", "colour", "prompt")  # what an answer has
WAIT = 10.0  # seconds for another rater's answer to be written


def append_answer(path: Path, answer: Mapping[str, Any]) -> None:
    """Write one answer to the end of a file and to the disk, whoever else writes."""
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
            raise StoreError(f"{path} is being written by somebody else for more than {WAIT:.0f} s; answer again") from None


def _ends_with_newline(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Every whole answer of a file, in order; none if there is no file. What is no answer is left out with a warning."""
    found, damaged = parse_answers(path)
    if damaged:
        warnings.warn(f"{path}: {damaged} lines are no answers and were left out", InterpWarning, stacklevel=2)
    return found


def parse_answers(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The answers of a file, and how many lines are none."""
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
