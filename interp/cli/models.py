"""`interp models`."""

from __future__ import annotations

from typing import Annotated

import typer

from interp.cli.console import print_json, print_table


def models(
    support: Annotated[bool, typer.Option("--support", help="Properties of every family: blocks, gates, guidance.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The same as Markdown: the table of docs/models.md.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Pure JSON on stdout.")] = False,
) -> None:
    """List the known models and whether this version can trace them."""
    if not support and not markdown:
        _print_names(as_json)
        return
    from interp.models import support as known

    rows = known.support()
    if markdown:
        print(known.markdown(rows), end="")
    elif as_json:
        print_json(rows)
    else:
        print_table("", list(rows[0]), [list(row.values()) for row in rows])


def _print_names(as_json: bool) -> None:
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
