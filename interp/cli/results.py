"""Shared by the commands: options, and how a result is shown, stored and drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.analysis.table import Rows, Table, as_text, clean, table
from interp.cli.console import print_json, print_table, say

if TYPE_CHECKING:
    import xarray as xr

RunPath = Annotated[Path, typer.Argument(help="A store that `interp trace` wrote.")]
AsJson = Annotated[bool, typer.Option("--json", help="Pure JSON on stdout.")]
Save = Annotated[bool, typer.Option(help="Keep the result in the store, under analysis/NAME.")]
Figures = Annotated[Path | None, typer.Option(help="Folder to write figures into.")]


def check_format(kind: str) -> str:
    """Refuse an unknown kind of figure before any work is done."""
    from interp.base.errors import InputError
    from interp.figures.style import FORMATS

    if kind not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}; got {kind!r}")
    return kind


Format = Annotated[
    str, typer.Option("--format", callback=check_format, help="html, png or svg (the last two need the extra `export`).")
]

SETS, PAPERS = ", of sets", ", the paper's numbers"


def show(sections: Mapping[str, tuple[xr.Dataset, Rows]], as_json: bool) -> None:
    """Print each section as a table with its averages and intervals, or all sections as one JSON document."""
    if as_json:
        document = {
            name: {**clean(result.attrs), "rows": [clean(row) for row in rows]} for name, (result, rows) in sections.items()
        }
        print_json(document)
        return
    for name, (result, rows) in sections.items():
        columns = list(rows[0]) if rows else []
        title = f"{name}  [{result.attrs['criterion']}]" if "criterion" in result.attrs else name
        if rows:
            print_table(title, columns, [[as_text(row[column]) for column in columns] for row in rows])
        else:
            print(f"{title}: nothing to show")
        for field in ("steps", "averaged_over", "interval", "control", "note"):
            if result.attrs.get(field):
                print(f"  {field.replace('_', ' ')}: {result.attrs[field]}")
        print()


def papers_say(topics: Sequence[str], as_json: bool) -> None:
    """Print the papers' statements on these topics below the measured results."""
    from interp.analysis.table import about

    found = [finding for topic in topics for finding in about(topic)]
    if found and not as_json:
        print_table(
            "the papers say (not measured here)",
            ["claim", "model", "value", "source"],
            [[finding.claim, finding.model, finding.value, finding.source] for finding in found],
        )


def draw(folder: Path | None, kind: str, figures: Mapping[str, Callable[[], Any]]) -> None:
    """Write figures into a folder."""
    if folder is None:
        return
    from interp.figures.style import write

    for name, make in figures.items():
        say(str(write(make(), folder / f"{name}.{kind}")))


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
