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
    from interp.evaluation.gallery import opened
    from interp.report import report as write

    for path in write(opened(store), out or store.with_suffix(".html"), static=static):
        print(path)
