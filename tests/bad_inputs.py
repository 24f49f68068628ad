"""Bad inputs and what each is answered: one table for the test (`test_cli.py`) and for the docs.

`python tests/bad_inputs.py > docs/errors.md` runs every one and writes the page.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from typer.main import get_command

TRACE = "trace --model {tiny} --prompts {prompts} --out {out}"


@dataclasses.dataclass(frozen=True)
class Case:
    """What is wrong, the command, and what its one line names: the field, the value and the hint; the exit code."""

    wrong: str
    command: str
    names: tuple[object, ...]
    code: int = 2
    prepare: Callable[[Path], None] = lambda folder: None


def write(name: str, data: bytes | str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data.encode() if isinstance(data, str) else data) and None


def traced(*more: str) -> Callable[[Path], None]:
    """A finished store of the folder's prompts, traced with these options; each is traced once, for all rows to read."""

    def prepare(folder: Path) -> None:
        where = places(folder)
        words = [*TRACE.format(**where | {"out": "OUT"}).split(), *more, Path(where["prompts"]).read_text()]
        made = folder.parent / f"finished-{hashlib.sha256(repr(words[5:]).encode()).hexdigest()[:16]}.zarr"
        if not made.exists():
            run([*TRACE.format(**where | {"out": str(made)}).split(), *more])
        Path(where["out"]).symlink_to(made, target_is_directory=True)

    return prepare


finished_store = traced("--steps", "1")


def places(folder: Path) -> dict[str, str]:
    """What stands for the words in braces of a command; the tiny model is the shared one, so that stores can be shared too."""
    tiny = (folder / "tiny").resolve() if (folder / "tiny").is_symlink() else folder / "tiny"
    return {
        "tiny": str(tiny),
        "prompts": str(folder / "prompts.txt"),
        "out": str(folder / "out.zarr"),
        "folder": str(folder),
    }


def set_up(folder: Path, tiny: Path) -> None:
    """A folder with a tiny model and a prompts file in it."""
    (folder / "tiny").symlink_to(tiny, target_is_directory=True)
    (folder / "prompts.txt").write_text("a red cat\n")


@functools.cache
def _command(app: Any) -> Any:
    return get_command(app)


def run(words: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, run in this process; the tree of commands is built once."""
    from interp.cli import main

    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch("typer.main.get_command", _command),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.suppress(SystemExit),
    ):
        code = 1
        try:
            main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def answer(case: Case, folder: Path, tiny: Path) -> tuple[int, str, str]:
    """Run a case in a fresh folder."""
    set_up(folder, tiny)
    case.prepare(folder)
    return run(case.command.format(**places(folder)).split())


def shown(text: str, folder: Path, tiny: Path) -> str:
    """An answer with its paths shortened, as the page shows it."""
    return text.strip().replace(str(folder), "FOLDER").replace(str(tiny.resolve()), "FOLDER/tiny")


def table() -> list[Case]:
    """Every row, in the page's order."""
    import bad_analyses
    import bad_evaluations
    import bad_experiments
    import bad_models
    import bad_traces

    cases = [*bad_traces.PROMPTS, *bad_models.CASES, *bad_models.PICTURES, *bad_traces.CASES]
    return [*cases, *bad_analyses.CASES, *bad_experiments.CASES, *bad_evaluations.CASES]


def page() -> str:
    """The docs page, from real answers."""
    from interp.models import tiny

    lines = [
        "# What bad input is answered",
        "",
        "Each of these was run; the answer is what the command printed on stderr, in one line, paths shortened. Exit code 2 is",
        "bad input, 1 a failure. `--debug` anywhere on the line adds the traceback. Written by",
        "`python tests/bad_inputs.py`; the same table is a test.",
        "",
        "| wrong | command | exit | answer |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as root:
        model = tiny.build("sd3", Path(root) / "tiny-model")
        for number, case in enumerate(table()):
            folder = Path(root) / f"case{number}"
            folder.mkdir()
            code, _, err = answer(case, folder, model)
            text = " ".join(shown(err, folder, model).replace("|", "\\|").split())
            command = case.command.format(**places(Path("FOLDER")))
            lines.append(f"| {case.wrong} | `interp {command}` | {code} | {text} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
