"""Names that `interp.load` and `--model` accept: hub id, pipeline class and sampling defaults. No torch here."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from interp.base.errors import ModelError

PACKAGED = Path(__file__).parent / "demo"
FAMILY_FILES = Path(__file__).parent / "families"
"""NAME.yaml of each family: its published models, `models`, and its tiny pipeline, `tiny`."""
SIDECAR = "interp.json"  # in a pipeline folder: its defaults and vocabulary


@dataclasses.dataclass(frozen=True)
class Defaults:
    """Defaults of a run; `None` leaves a value to the pipeline."""

    steps: int = 28
    height: int | None = None
    width: int | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    vocabulary: frozenset[str] = frozenset()
    """Words a small model was trained on; other words give a warning. Empty: any."""


@dataclasses.dataclass(frozen=True)
class MassiveClaim:
    """Channels claimed to be massive in a model's image stream, at the output of a block (0-based)."""

    block: int
    channels: tuple[int, ...]
    source: str


@dataclasses.dataclass(frozen=True)
class Entry:
    """One alias of the catalog."""

    name: str
    source: str
    """Hub id, or a folder inside the package."""
    pipeline_class: str
    about: str
    defaults: Defaults = dataclasses.field(default_factory=Defaults)
    revision: str | None = None
    massive: MassiveClaim | None = None
    """The paper's claim, if there is one; `interp selfcheck` tests it."""
    config: Mapping[str, Any] | None = None
    """The published config of the transformer, so that its shape needs no network. `interp inspect` prefers the hub's own
    config where it is on this machine."""

    @property
    def folder(self) -> Path | None:
        """The packaged folder, for a model that ships with this package."""
        return PACKAGED / self.source if self.source in ("weights", "early") else None


def entry_of(name: str | Path) -> Entry | None:
    """The entry of a name; `None` for a path, also one such as `./demo`: a folder, not a name."""
    return None if isinstance(name, Path) else CATALOG.get(name)


def nearest(wanted: str, known: Iterable[str], command: str = "interp models") -> str:
    """The known names nearest to one that is not known, and the command that lists all: for the end of an error."""
    near = difflib.get_close_matches(wanted, list(known), 3, 0.65)
    asked = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{asked}`{command}` lists what there is"


def source_of(name: str | Path) -> str:
    """The hub id or folder of a model, by alias or as given."""
    entry = entry_of(name)
    return str(entry.folder or entry.source) if entry else str(name)


def _entry(name: str, values: dict[str, Any]) -> Entry:
    """An entry from its fields in the file."""
    claim, steps = values.pop("massive", None), values.pop("steps", Defaults.steps)
    massive = None if claim is None else MassiveClaim(**{**claim, "channels": tuple(claim["channels"])})
    return Entry(name, defaults=Defaults(steps), massive=massive, **values)


@functools.cache
def read_yaml(path: Path) -> Any:
    """What a YAML file holds."""
    with path.open(encoding="utf-8") as file:
        return yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _found() -> dict[str, Entry]:
    """The models of every family's file; those that ship with this package come first."""
    files = [read_yaml(path)["models"] for path in sorted(FAMILY_FILES.glob("*.yaml"))]
    entries = [_entry(name, dict(values)) for models in files for name, values in (models or {}).items()]
    return {entry.name: entry for entry in sorted(entries, key=lambda entry: entry.folder is None)}


CATALOG: dict[str, Entry] = _found()


def folder_defaults(folder: Path) -> Defaults | None:
    """Defaults from a pipeline folder's `interp.json`, if it has one."""
    path = folder / SIDECAR
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = frozenset(str(word) for word in values.get("vocabulary", ()))
        return Defaults(**{**values, "settings": dict(values.get("settings", {})), "vocabulary": vocabulary})
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} must hold the fields of interp's Defaults as JSON; {error} (fix or delete it)") from None


def write_defaults(folder: Path, defaults: Defaults) -> None:
    """Write `interp.json` into a pipeline folder."""
    given = {name: value for name, value in dataclasses.asdict(defaults).items() if value is not None}
    values = {**given, "vocabulary": sorted(defaults.vocabulary)}
    (folder / SIDECAR).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
