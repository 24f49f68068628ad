"""`interp report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    store: Annotated[Path, typer.Argument(help="A store that `interp evaluate` drew or scored.")],
    out: Annotated[Path | None, typer.Option(help="The page to write. [default: STORE.html]")] = None,
    static: Annotated[bool, typer.Option("--static", help="Static figures, no scripts (needs the extra `export`).")] = False,
) -> None:
    """Write a store's evaluation as one self-contained HTML page, and its numbers as JSON."""
    from interp.report import report as write
    from interp.store.experiment import is_experiment, open_experiment
    from interp.store.traced_run import open_run

    made = open_experiment(store) if is_experiment(store) else open_run(store)
    for path in write(made, out or store.with_suffix(".html"), static=static):
        print(path)
