"""Prompt files: one prompt per line, or a `prompt` column of a .tsv, .csv or .jsonl file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from interp.base.errors import InputError

EMPTY = '""'
"""The line of a text file that stands for the empty prompt."""
TABLES = {".tsv": "\t", ".csv": ","}


def read_prompts(path: str | Path) -> list[str]:
    """Read the prompts of a file, in order, with duplicates.

    Files are UTF-8, with or without a byte order mark, with any line endings. In text files, blank lines and lines that start
    with `#` are skipped, and a line of two quotation marks, "", is the empty prompt. .tsv, .csv and .jsonl files need a
    `prompt` column (any case); an empty value in it is the empty prompt.
    """
    path = Path(path)
    text = _read_text(path)
    try:
        if path.suffix.lower() in TABLES:
            found = list(_from_table(text, TABLES[path.suffix.lower()]))
        elif path.suffix.lower() == ".json":
            raise InputError("a .json file is not read; write one object per line into a .jsonl file, or one prompt per line")
        elif path.suffix.lower() == ".jsonl":
            found = list(_from_json_lines(text))
        else:
            lines = [line.strip() for line in _lines(text)]
            found = ["" if line == EMPTY else line for line in lines if line and not line.startswith("#")]
    except InputError as error:
        raise InputError(f"prompts file {path}: {error}") from None
    return check_prompts(found, f"prompts file {path}")


def same_text(prompt: Any) -> Any:
    """What prompts that differ in spaces or case alone have in common: they are one prompt to statistics and to seeds."""
    return " ".join(prompt.split()).casefold() if isinstance(prompt, str) else prompt


def check_prompts(prompts: Iterable[str], name: str = "prompts") -> list[str]:
    """Strip the prompts; a blank one is the empty prompt. Raises InputError for anything but an ordered list of texts."""
    if not isinstance(prompts, Iterable) or isinstance(prompts, Mapping | Set) or getattr(prompts, "ndim", 1) != 1:
        raise InputError(f"{name} must be a list of texts or the path of a prompts file; got {prompts!r}")
    kept = []
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise InputError(f"{name}: every prompt must be a text; number {index} is {prompt!r}")
        if not prompt.isprintable() and any(0xD800 <= ord(letter) < 0xE000 for letter in prompt):
            raise InputError(f"{name}: a prompt must be valid Unicode; number {index} holds half a surrogate pair")
        if "\x00" in prompt:
            raise InputError(f"{name}: a prompt must not hold a NUL character; number {index} does (is it a text file?)")
        kept.append(prompt.strip())
    if not kept:
        raise InputError(f"{name} must hold at least one prompt; it holds none (write one per line)")
    return kept


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            raise InputError(f"prompts must be a file; {path} is a folder")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"prompts file {path} does not exist; give the path of a text file, one prompt per line") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"prompts file {path} must be UTF-8; byte {error.start} is {error.object[error.start]:#04x} "
            "(save it as UTF-8 and try again)"
        ) from None
    except OSError as error:
        raise InputError(f"prompts file {path} cannot be read: {error.strerror}") from None


def _lines(text: str) -> list[str]:
    """Split lines at LF, CRLF or CR only: `str.splitlines` also splits at a form feed or U+2028."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _from_table(text: str, delimiter: str) -> Iterator[str]:
    # tab-separated files have no quoting: a quotation mark is part of the prompt
    quoting: Any = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    if quoting == csv.QUOTE_MINIMAL and text.count('"') % 2:
        raise InputError('quotation marks must come in pairs in a .csv file; a lone one would join lines (write "" for one)')
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
        column = _prompt_column(rows.fieldnames or [])
        for row in rows:
            if row[column] is None:
                raise InputError(f"line {rows.line_num} has no prompt: it has fewer columns than the first line")
            yield row[column]
    except csv.Error as error:
        raise InputError(f"line {rows.line_num}: {error}") from None


def _from_json_lines(text: str) -> Iterator[str]:
    for number, line in enumerate(_lines(text), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"line {number} must be JSON; {error.msg} at column {error.colno}") from None
        except RecursionError:
            raise InputError(f"line {number} must be a flat JSON object; it is nested too deeply") from None
        if not isinstance(record, dict):
            raise InputError(f'line {number} must be an object such as {{"prompt": "..."}}; got {line.strip()[:40]}')
        yield record[_prompt_column(list(record))]


def _prompt_column(names: Iterable[str]) -> str:
    names = list(names)
    for name in names:
        if name.strip().lower() == "prompt":
            return name
    raise InputError(f"needs a column named prompt; has {', '.join(map(repr, names)) or 'none'}")
