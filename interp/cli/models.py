"""`interp models`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from interp.cli.console import print_json, print_table
from interp.cli.results import AsJson

NAMES = {"name": "name", "traced": "traceable", "source": "source", "about": "about"}


def models(
    support: Annotated[bool, typer.Option("--support", help="Properties of every family: blocks, gates, guidance.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The same as Markdown: the table of docs/models.md.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the known models and whether this version can trace them."""
    from interp.models import skeleton as known

    rows = known.support() if support or markdown else _names()
    shown = {name: name for name in rows[0]} if support else NAMES
    if markdown:
        print(known.markdown(rows), end="")
    elif as_json:
        print_json(rows)
    else:
        print_table("", list(shown), [[_cell(row[key]) for key in shown.values()] for row in rows])


def _cell(value: Any) -> str:
    return {True: "yes", False: "not yet"}[value] if isinstance(value, bool) else str(value)


def _names() -> list[dict[str, Any]]:
    """Every model of the catalog."""
    from interp.models.catalog import CATALOG
    from interp.models.families import PIPELINES

    return [
        {
            "name": entry.name,
            "source": "ships with interp" if entry.folder else entry.source,
            "available": entry.folder.is_dir() if entry.folder else None,
            "pipeline": entry.pipeline_class,
            "traceable": entry.pipeline_class in PIPELINES,
            "about": entry.about,
        }
        for entry in CATALOG.values()
    ]
