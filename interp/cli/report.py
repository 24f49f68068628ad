"""`interp report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    store: Annotated[Path, typer.Argument(help="A store that `interp evaluate` drew or scored.")],
    out: Annotated[Path | None, typer.Option(help="The page to write. [default: STORE.html]")] = None,
) -> None:
    """Write an evaluated store as one self-contained HTML page, and its numbers as JSON."""
    from interp.report import report as write
    from interp.store.experiment import open_experiment

    for path in write(open_experiment(store), out or store.with_suffix(".html")):
        print(path)
