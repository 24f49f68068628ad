"""`interp models`."""

from __future__ import annotations

from typing import Annotated

import typer

from interp.cli.console import print_json, print_table


def models(as_json: Annotated[bool, typer.Option("--json", help="Pure JSON on stdout.")] = False) -> None:
    """List the models known by name, and whether this version can trace them."""
    from interp.models.catalog import CATALOG
    from interp.models.families import PIPELINES

    rows = [
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
    if as_json:
        print_json(rows)
        return
    table = [
        [str(row["name"]), "yes" if row["traceable"] else "not yet", str(row["source"]), str(row["about"])] for row in rows
    ]
    print_table("", ["name", "traced", "source", "about"], table)
