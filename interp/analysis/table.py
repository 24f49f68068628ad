"""Results as tables: `Table` states once which rows and columns a result has; the terminal, JSON and pages render its rows."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

Rows = list[dict[str, Any]]
Value = str | tuple[str, str] | Callable[[Any], Any]
"""A column's value in one row: the name of a variable or coordinate, the two of an interval, or a function of the row's part of
the result.
"""


ABSENT: Any = object()
"""What a column's function returns where its row does not have the column."""


@dataclasses.dataclass(frozen=True)
class Along:
    """Columns for every value along a further axis; "{}" in a heading stands for the value."""

    axis: str
    columns: Mapping[str, Value]
    chosen: Callable[[xr.Dataset], list[int]] | None = None
    """Places along the axis; by default all."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A row for every place along the axes `over`, the last the fastest."""

    over: tuple[str, ...]
    columns: Mapping[str, Value | Along]
    """By heading, in which {NAME} stands for a coordinate's value; the heading of an `Along` is not shown."""
    keep: Callable[[xr.Dataset], Any] | None = None
    """Whether a row is shown."""

    def __add__(self, other: Table) -> Lines:
        """Put another table's rows below."""
        return Lines((self, other))

    def rows(self, found: xr.Dataset) -> Rows:
        """The rows of a result, numbers as Python's own."""
        return [{name: value for name, value in self._cells(one) if value is not ABSENT} for one in self._parts(found)]

    def _parts(self, found: xr.Dataset) -> Iterator[xr.Dataset]:
        for place in itertools.product(*(range(found.sizes[axis]) for axis in self.over)):
            one = found.isel(dict(zip(self.over, place, strict=True)))
            if self.keep is None or bool(self.keep(one)):
                yield one

    def _cells(self, one: xr.Dataset) -> Iterator[tuple[str, Any]]:
        for heading, value in self.columns.items():
            if not isinstance(value, Along):
                yield re.sub(r"\{(\w+)\}", lambda found: shown(one[found[1]]), heading), read(one, value)
                continue
            for place in range(one.sizes[value.axis]) if value.chosen is None else value.chosen(one):
                part = one.isel({value.axis: place})
                name = shown(part[value.axis])
                for pattern, column in value.columns.items():
                    yield pattern.replace("{}", name), read(part, column)


@dataclasses.dataclass(frozen=True)
class Lines:
    """Tables of the same columns, one below the other."""

    tables: tuple[Table, ...]

    def rows(self, found: xr.Dataset) -> Rows:
        """All rows."""
        return [row for table in self.tables for row in table.rows(found)]


def read(one: xr.Dataset, value: Value) -> Any:
    """One cell."""
    if callable(value):
        return value(one)
    if isinstance(value, tuple):
        return [float(one[bound]) for bound in value]
    return plain(one[value])


def plain(value: xr.DataArray) -> Any:
    """A single value as Python's own."""
    number = value.item()
    return number if isinstance(number, bool | int | float) else str(number)


def shown(value: xr.DataArray) -> str:
    """A coordinate's value in a heading: underscores as spaces, numbers short."""
    number = value.item()
    return f"{number:g}" if isinstance(number, float) else str(number).replace("_", " ")


BY_ARM = Table(("arm",), {"arm": lambda one: shown(one["arm"]), "{measure}": "value", "interval": ("low", "high")})
"""Of `pairs.by_arm`, one measure."""


def words(name: str) -> Value:
    """A column of texts, underscores as spaces."""
    return lambda one: shown(one[name])


def nothing(one: xr.Dataset) -> str:
    """A column without a value."""
    return "-"


def over_steps(name: str) -> Value:
    """A variable's mean over steps."""
    return lambda one: float(one[name].mean("step"))
