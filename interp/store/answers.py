"""A blind study on disk: the compared arms, and the answers.

studies/NAME.json     experiment, first, second, rows, question texts: fixed when the study is created
studies/NAME.jsonl    one answer per line; a line that a crash cut short is skipped with a warning
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from interp.base.errors import InputError, InterpWarning, PlanError, StoreError
from interp.store.create import replacing, storage_errors

FOLDER = "studies"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
FIELDS = ("rater", "pair", "detail", "colour", "prompt")  # fields of an answer
WAIT = 10.0  # seconds to wait while another rater writes


@dataclasses.dataclass(frozen=True)
class Study:
    """Two arms of one experiment, compared on some of its rows."""

    experiment: str
    """The store's folder, relative to the folder that holds `studies/`."""
    first: int
    second: int
    first_name: str
    second_name: str
    rows: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.first == self.second:
            raise InputError(f"second must be another arm than the first; got {self.first_name!r} twice")
        if not self.rows:
            raise InputError("rows must be one or more rows that both arms have drawn; got none")


def study_file(root: Path, name: str) -> Path:
    """The path of a study; its answers are next to it, as .jsonl."""
    if not NAME.fullmatch(name):
        raise InputError(f"study must be a plain name of letters, digits, - and _ such as dg-or-cfg; got {name!r}")
    return root / FOLDER / f"{name}.json"


def write_study(root: Path, name: str, study: Study) -> Path:
    """Create a study; an existing study of that name with other content raises PlanError."""
    path = study_file(root, name)
    if path.exists():
        if read_study(path) != study:
            raise PlanError(f"study {name!r} exists and compares something else; give another name")
        return path
    with replacing(path) as partial:
        partial.write_text(json.dumps(dataclasses.asdict(study), indent=1), encoding="utf-8")
    return path


def read_study(path: Path) -> Study:
    """Read and check a study."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Study(**{**values, "rows": tuple(int(row) for row in values["rows"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"study {path} cannot be read ({type(error).__name__}: {error}); make it again") from None


def study_names(root: Path) -> list[str]:
    """Names of the studies under a root; other files are ignored."""
    folder = root / FOLDER
    return sorted(path.stem for path in folder.glob("*.json") if NAME.fullmatch(path.stem)) if folder.is_dir() else []


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
