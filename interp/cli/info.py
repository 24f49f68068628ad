"""`interp info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.console import print_json, print_table
from interp.cli.results import AsJson


def info(
    run: Annotated[Path, typer.Argument(help="A store that `interp trace` or an experiment wrote.")],
    as_json: AsJson = False,
) -> None:
    """Print a store's contents, provenance and progress."""
    from interp.store.experiment import is_experiment, open_experiment
    from interp.store.traced_run import open_run

    opened: Any = open_experiment(run) if is_experiment(run) else open_run(run)
    facts, plan = opened.facts(), {"plan": opened.plan, "provenance": opened.provenance}
    created = str(opened.provenance.get("created"))
    if is_experiment(run):
        document = {**facts, "parameters": opened.parameters, **plan}
        columns, most = ["arm", "drawn"], 20
        rows = zip(opened.axes["arm"].to_numpy(), opened.done.sum(axis=0), strict=True)
    else:
        document = {"rows_done": opened.rows_done, "rows_total": opened.rows_total, **facts, **plan}
        columns, most = ["prompt", "text"], 10
        rows = zip(opened.images["prompt"].to_numpy(), opened.prompts, strict=True)
        created += f", batch size {opened.provenance.get('batch_size')}"
    if as_json:
        print_json({"store": str(opened.path), **document})
        return
    print_table(str(opened.path), ["", ""], list({**facts, "created": created}.items()))
    lines = [[str(value) for value in row] for row in rows]
    print_table("", columns, lines[:most])
    if len(lines) > most:
        print(f"... and {len(lines) - most} more")
