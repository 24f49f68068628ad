"""Results as tables: their rows and columns (tables.toml). The terminal, JSON and pages render the same rows.

Numbers that the papers publish (published.csv) are shown next to measured numbers, always marked as published.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

Rows = list[dict[str, Any]]
View = Callable[["xr.Dataset"], "xr.Dataset"]
Value = str | Sequence[str]
"""The name of a variable or coordinate, the names of an interval's bounds, "-", or a text in which {NAME} stands for a
coordinate's value. A column whose variable is not in the result is left out.
"""
FILED = tomllib.loads(Path(__file__).with_name("tables.toml").read_text(encoding="utf-8"))
LEAST = 1e-12  # shown as 0
DG = "Detail Guidance, arXiv 2510.11538"
FC = "Few Channels, arXiv 2605.13974"


@dataclasses.dataclass(frozen=True)
class Finding:
    """A published result."""

    topic: str
    """The analysis that measures the same."""
    claim: str
    model: str
    value: str
    source: str


with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
    PUBLISHED = tuple(Finding(**row) for row in csv.DictReader(file))


def about(topic: str) -> list[Finding]:
    """The published results on one topic."""
    return [finding for finding in PUBLISHED if finding.topic == topic]


@dataclasses.dataclass(frozen=True)
class Table:
    """A row for every place along the axes `over`, the last the fastest."""

    over: Sequence[str]
    columns: Mapping[str, Value | Mapping[str, Value]]
    """By heading, in which {NAME} stands for a coordinate's value. A mapping has columns for every value along the axis
    `along`; "{}" in its headings stands for the value, and its own heading is not shown.
    """
    keep: str = ""
    """A variable: rows in which it is NaN or false, or results without it, are not shown."""
    below: Table | None = None
    """A table of the same result whose rows follow."""
    view: View = lambda found: found
    """Derives the shown variables from the result."""

    def rows(self, found: xr.Dataset) -> Rows:
        """The rows of a result, numbers as Python's own."""
        further = self.below.rows(found) if self.below is not None else []
        return [dict(self._cells(one)) for one in self._parts(self.view(found))] + further

    def _parts(self, found: xr.Dataset) -> Iterator[xr.Dataset]:
        for place in itertools.product(*(range(found.sizes[axis]) for axis in self.over)):
            one = found.isel(dict(zip(self.over, place, strict=True)))
            if not self.keep or (self.keep in one and _is_shown(one[self.keep])):
                yield one

    def _cells(self, one: xr.Dataset) -> Iterator[tuple[str, Any]]:
        for heading, value in self.columns.items():
            if not isinstance(value, Mapping):
                yield from _cell(filled(heading, one), one, value)
                continue
            axis, further = str(value["along"]), {name: column for name, column in value.items() if name != "along"}
            for place in range(one.sizes[axis]):
                part = one.isel({axis: place})
                for pattern, column in further.items():
                    yield from _cell(pattern.replace("{}", shown(part[axis])), part, column)


def table(name: str, view: View = lambda found: found) -> Table:
    """A table of tables.toml, of a view of the result."""
    given = FILED[name]
    below = table(given["below"]) if "below" in given else None
    return Table(given["over"], given["columns"], given.get("keep", ""), below, view)


def _is_shown(value: xr.DataArray) -> bool:
    return bool(value.notnull().any()) if value.dtype.kind == "f" else bool(value.item())


def _cell(heading: str, one: xr.Dataset, value: Value) -> Iterator[tuple[str, Any]]:
    """The heading and the value of a cell; nothing without the variable."""
    if not isinstance(value, str):
        if value[0] in one:
            yield heading, [float(one[bound]) for bound in value]
    elif value == "-" or "{" in value:
        yield heading, filled(value, one)
    elif value in one:
        number = one[value].item()
        yield heading, number if isinstance(number, bool | int | float) else str(number)


def filled(text: str, one: xr.Dataset) -> str:
    """A text with the values of the coordinates that it names."""
    return re.sub(r"\{(\w+)\}", lambda found: shown(one[found[1]]), text)


def shown(value: xr.DataArray) -> str:
    """A coordinate's value as text: underscores as spaces, numbers short."""
    number = value.item()
    return f"{number:g}" if isinstance(number, float) else str(number).replace("_", " ")


def clean(value: Any) -> Any:
    """Convert to JSON values: numpy's numbers to numbers, NaN to null."""
    if isinstance(value, Mapping):
        return {str(key): clean(one) for key, one in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [clean(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_text(value: Any) -> str:
    """A value or an interval as text, numbers with three digits."""
    value = clean(value)
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "0" if abs(value) < LEAST else f"{value:.3g}"
    if isinstance(value, list):
        return "-" if None in value else f"[{', '.join(as_text(item) for item in value)}]"
    return str(value)
