"""A blind study on disk: the compared arms, and the answers.

studies/NAME.json     experiment, first, second, rows, question texts: fixed when the study is created
studies/NAME.jsonl    one answer per line
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

from interp.base.errors import InputError, PlanError, StoreError
from interp.store.create import replacing

FOLDER = "studies"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


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
