"""`interp merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interp.cli.console import counted, print_json, say
from interp.cli.results import AsJson


def merge(
    parts: Annotated[list[Path], typer.Argument(help="Stores of the same plan, with different rows done.")],
    out: Annotated[Path, typer.Option(help="The store to create or extend.")],
    as_json: AsJson = False,
) -> None:
    """Join rows traced elsewhere into one store; their files are copied unchanged."""
    from interp.store.merging import merge as join
    from interp.store.traced_run import open_run

    copied = join(out, parts)
    run = open_run(out)
    if as_json:
        print_json({"store": str(out), "copied": copied, "rows_done": run.rows_done, "rows_total": run.rows_total})
        return
    print(out)
    say(f"{counted(copied, 'row')} copied; {run.rows_done} of {run.rows_total} done")
