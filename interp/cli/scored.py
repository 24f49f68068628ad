"""An evaluation's results as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from interp.analysis.table import Rows, Table, table

if TYPE_CHECKING:
    import xarray as xr

SETS, PAPERS = ", of sets", ", the paper's numbers"


def sections_of(results: Mapping[str, xr.Dataset]) -> dict[str, tuple[xr.Dataset, Rows]]:
    """A table for every result, and for its measures of sets and the paper's numbers."""
    sections: dict[str, tuple[xr.Dataset, Rows]] = {}
    for key, found in results.items():
        name = key.replace("_", ": ", 1) if key.startswith("evaluation_") else key.replace("_", " ")
        for title, make in TABLES[str(found.attrs["analysis"])].items():
            if rows := make(found):
                sections[f"{name}{title}"] = (_of_table(found, title), rows)
    return sections


def _of_table(found: xr.Dataset, title: str) -> xr.Dataset:
    """The result with this table's interval, and without a note, in place of those of single pictures."""
    if title == SETS:
        return found.assign_attrs(interval=found.attrs.get("set_interval", ""), note="")
    return found.assign_attrs(interval="", note="") if title == PAPERS else found


def set_rows(found: xr.Dataset) -> Rows:
    """A row for every setting, a column for every measure of sets."""
    if not found["set_value"].notnull().any():
        return []
    lines: dict[str, dict[str, Any]] = {}
    for row in table("evaluation_sets").rows(found):
        measure, line = row["measure of sets"], lines.setdefault(row["setting"], {"setting": row["setting"]})
        line |= {measure: row["value"], f"{measure}, interval": row["interval"]}
    return list(lines.values())


def study_rows(found: xr.Dataset) -> Rows:
    """A row for every question of a blind study."""
    wins = f"{found.attrs['methods'][0]} wins"
    interval = ("win_low", "win_high")
    columns = {"question": "question", wins: "win", "interval": interval, "agreement": "agreement"}
    return Table(("question",), columns).rows(found)


TABLES: Mapping[str, Mapping[str, Callable[[Any], Rows]]] = {
    "evaluation": {"": table("evaluation").rows, SETS: set_rows, PAPERS: table("evaluation_papers").rows},
    "segmentation_score": {"": table("overlap").rows},
    "collapse": {"": table("collapse").rows},
    "study": {"": study_rows},
}
