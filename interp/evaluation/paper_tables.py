"""The papers' tables as data (published.csv), always printed separately from measured results."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

TABLE = Path(__file__).parent / "published.csv"


@dataclasses.dataclass(frozen=True)
class Reported:
    """One number of a paper."""

    table: str
    """The preset that reproduces it."""
    model: str
    setting: str
    """Name of the setting in the preset."""
    metric: str
    value: str
    """As printed."""
    note: str = ""


def reported(table: str) -> list[Reported]:
    """The numbers of a paper's table, in its order."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [Reported(**row) for row in csv.DictReader(file) if row["table"] == table]


def of_setting(numbers: Sequence[Reported], setting: str) -> str:
    """A setting's numbers in one line: `SD3: CLIPScore 22.11, ...; SD3.5 Large: ...`."""
    own = [one for one in numbers if one.setting == setting]
    models = dict.fromkeys(one.model for one in own)
    said = (f"{model}: " + ", ".join(f"{one.metric} {one.value}" for one in own if one.model == model) for model in models)
    return "; ".join(said)
