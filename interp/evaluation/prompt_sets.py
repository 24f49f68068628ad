"""Prompts by the name of a published list, from the hub or a user's copy, with the list's styles.

    read("geneval=prompts.txt")     a copy of the list
    read("hpsv2")                   from the hub
    read("mine.txt")                any prompts file

The package contains no list; the demo model's prompts are generated from its world.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.base.errors import InputError
from interp.base.prompts import check_prompts, read_prompts

TABLE = Path(__file__).parent / "prompt_lists.toml"
DEMO = "demo"
DEMO_COUNT, DEMO_SEED = 24, 2_024


@dataclasses.dataclass(frozen=True)
class Published:
    """A published list of prompts."""

    name: str
    files: Mapping[str, str]
    """Style -> file, as published; one file of style "" for a list without styles."""
    repository: str | None = None
    """Hub data set that holds the files; `None` if the list is not on the hub."""
    column: str = "prompt"
    """Name of the prompt's column, for tables."""
    style_column: str | None = None


@dataclasses.dataclass(frozen=True)
class PromptSet:
    """Prompts with their source and styles."""

    name: str
    texts: tuple[str, ...]
    styles: tuple[str | None, ...]
    source: str

    @property
    def digest(self) -> str:
        """SHA-256 of the prompts, one per line."""
        return hashlib.sha256("\n".join(self.texts).encode()).hexdigest()

    def first(self, count: int | None) -> PromptSet:
        """The first `count` prompts, taken from every style in turn; all of them for None."""
        if count is None or count >= len(self.texts):
            return self
        kept = sorted(in_turn(self.styles)[:count])
        texts, styles = tuple(self.texts[place] for place in kept), tuple(self.styles[place] for place in kept)
        return dataclasses.replace(self, texts=texts, styles=styles, source=f"{count} of {len(self.texts)} of {self.source}")

    def style_of(self, text: str) -> str | None:
        """The style of a prompt, if the list has styles."""
        return dict(zip(self.texts, self.styles, strict=True)).get(text)

    def facts(self) -> dict[str, str]:
        """The facts to store in results."""
        return {"prompts": self.source, "prompts_sha256": self.digest}


SETS: Mapping[str, Published] = {
    name: Published(name, **fields) for name, fields in tomllib.loads(TABLE.read_text(encoding="utf-8")).items()
}


def in_turn(kinds: Sequence[Any]) -> list[int]:
    """Places ordered so that the first of every kind come first, then the second of every kind, and so on."""
    seen: collections.Counter[Any] = collections.Counter()
    turns = []
    for place, kind in enumerate(kinds):
        turns.append((seen[kind], place))
        seen[kind] += 1
    return [place for _, place in sorted(turns)]


def read(given: str, count: int | None = None) -> PromptSet:
    """A published list, from the hub (`hpsv2`) or a copy (`hpsv2=FOLDER`, `geneval=FILE`); `demo`; or a prompts file."""
    if count is not None and count < 1:
        raise InputError(f"count must be at least 1; got {count}")
    name, _, where = given.partition("=")
    if name == DEMO and not where:
        return demo(DEMO_COUNT if count is None else count)
    if name in SETS:
        return _published(SETS[name], where).first(count)
    if not Path(given).exists() and not Path(given).suffix:
        raise InputError(f"prompts must be a prompts file, or one of demo, {', '.join(SETS)}; got {given!r}")
    texts = tuple(read_prompts(given))
    return PromptSet("file", texts, (None,) * len(texts), Path(given).name).first(count)


def demo(count: int = DEMO_COUNT) -> PromptSet:
    """Full captions of the demo world: they name every attribute, with each texture (used as the style) equally often."""
    from interp.models.demo import world

    textures = list(world.TEXTURES)
    scenes: dict[str, list[str]] = {texture: [] for texture in textures}
    for scene in world.sample(40 * count, seed=DEMO_SEED):
        caption = scene.caption()
        if len(scenes[scene.texture]) < -(-count // len(textures)) and caption not in scenes[scene.texture]:
            scenes[scene.texture].append(caption)
    pairs = [(text, texture) for row in zip(*scenes.values(), strict=True) for text, texture in zip(row, textures, strict=True)]
    texts, styles = zip(*pairs[:count], strict=True)
    return PromptSet(DEMO, texts, styles, f"{count} captions of the demo world")


def _published(one: Published, where: str) -> PromptSet:
    texts: list[str] = []
    styles: list[str | None] = []
    for style, file in one.files.items():
        for path in _found(one, file, where):
            for text, own in _rows(path, one):
                texts.append(text)
                styles.append(own or style or None)
    checked = check_prompts(texts, f"prompts {one.name}")
    if len(checked) != len(texts):
        raise InputError(f"prompts {one.name}: {len(texts) - len(checked)} of them are blank; give a complete copy of the list")
    return PromptSet(one.name, tuple(checked), tuple(styles), f"{one.name} ({where or one.repository})")


def _found(one: Published, file: str, where: str) -> list[Path]:
    """The list's files: at the path or in the folder given, else from the hub."""
    if not where and one.repository is None:
        raise InputError(f"prompts {one.name} are not on the hub; get {file} from its repository and give {one.name}=FILE")
    place = Path(where) if where else _downloaded(one, file)
    if place.is_file() and len(one.files) == 1:
        return [place]
    for pattern in (file, Path(file).name):
        if matches := sorted(place.glob(pattern)):
            return matches
    raise InputError(
        f"prompts {one.name}: {where or one.repository} holds no {Path(file).name}; give a folder with the files as published"
    )


def _downloaded(one: Published, file: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(one.repository), repo_type="dataset", allow_patterns=[file]))
    except Exception as error:  # the client does not wrap its HTTP library's errors
        raise InputError(
            f"prompts {one.name}: {file} of the data set {one.repository} cannot be read from the hub "
            f"({type(error).__name__}); give a copy of it: {one.name}=FOLDER"
        ) from None


def _rows(path: Path, one: Published) -> list[tuple[str, str | None]]:
    """(prompt, style or None) pairs of a file, by its format; columns of a table by name, ignoring case."""
    import csv

    import pandas

    kind = path.suffix.lower()
    try:
        if kind == ".json":
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                raise InputError(f"prompts: {path} must be a JSON list of texts, as HPSv2's benchmark files are")
            return [(text, None) for text in values]
        if kind == ".parquet":
            table = pandas.read_parquet(path)
        elif kind == ".tsv":
            table = pandas.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, keep_default_na=False)
        else:
            return [(text, None) for text in read_prompts(path)]
    except (OSError, ValueError) as error:
        raise InputError(f"prompts: {path} cannot be read as {kind[1:].upper()} ({error})") from None
    table.columns = [str(name).strip().lower() for name in table.columns]
    for name in (one.column, one.style_column):
        if name is not None and name not in table:
            raise InputError(f"prompts: {path} needs a column {name}; has {', '.join(table.columns)}")
    styles = table[one.style_column] if one.style_column is not None else [None] * len(table)
    return [(str(text), None if style is None else str(style)) for text, style in zip(table[one.column], styles, strict=True)]
