"""Prompt files: one prompt a line, or a `prompt` column of a .tsv, .csv or .jsonl file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from interp.errors import InputError

TABLES = {".tsv": "\t", ".csv": ","}


def read_prompts(path: str | Path) -> list[str]:
    """The prompts of a file, in order, duplicates kept.

    UTF-8 with or without a byte order mark, any line ends. In a text file blank lines and lines that start with `#` are
    skipped; .tsv, .csv and .jsonl files need a `prompt` column (any case).
    """
    path = Path(path)
    text = _read_text(path)
    try:
        if path.suffix.lower() in TABLES:
            found = list(_from_table(text, TABLES[path.suffix.lower()]))
        elif path.suffix.lower() == ".jsonl":
            found = list(_from_json_lines(text))
        else:
            found = [line for line in _lines(text) if not line.lstrip().startswith("#")]
    except InputError as error:
        raise InputError(f"prompts file {path}: {error}") from None
    return check_prompts(found, f"prompts file {path}")


def check_prompts(prompts: Iterable[str], name: str = "prompts") -> list[str]:
    """The prompts without surrounding spaces and without blank ones; an error when none is left."""
    kept = []
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise InputError(f"{name}: every prompt must be a text; number {index} is {prompt!r}")
        if "\x00" in prompt:
            raise InputError(f"{name}: a prompt must not hold a NUL character; number {index} does (is it a text file?)")
        if prompt.strip():
            kept.append(prompt.strip())
    if not kept:
        raise InputError(f"{name} must hold at least one prompt; it holds none (write one a line)")
    return kept


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise InputError(f"prompts must be a file; {path} is a folder")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"prompts file {path} does not exist; give the path of a text file, one prompt a line") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"prompts file {path} must be UTF-8; byte {error.start} is {error.object[error.start]:#04x} "
            "(save it as UTF-8 and try again)"
        ) from None
    except OSError as error:
        raise InputError(f"prompts file {path} cannot be read: {error.strerror}") from None


def _lines(text: str) -> list[str]:
    """Lines by LF, CRLF or CR alone: `str.splitlines` would also split at a form feed or U+2028."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _from_table(text: str, delimiter: str) -> Iterator[str]:
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    column = _prompt_column(rows.fieldnames or [])
    for row in rows:
        yield row[column] or ""


def _from_json_lines(text: str) -> Iterator[str]:
    for number, line in enumerate(_lines(text), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"line {number} must be JSON; {error.msg} at column {error.colno}") from None
        if not isinstance(record, dict):
            raise InputError(f'line {number} must be an object such as {{"prompt": "..."}}; got {line.strip()[:40]}')
        yield record[_prompt_column(list(record))]


def _prompt_column(names: Iterable[str]) -> str:
    names = list(names)
    for name in names:
        if name.strip().lower() == "prompt":
            return name
    raise InputError(f"needs a column named prompt; has {', '.join(map(repr, names)) or 'none'}")
