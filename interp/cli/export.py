"""`interp export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal

from interp.cli.console import print_json, say
from interp.cli.results import AsJson, RunPath


def export(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="File to write: .csv, .parquet or .nc (NetCDF).")],
    what: Annotated[
        str, typer.Option(help="stats, gates, branches or summary; or analysis/NAME, a result kept in the store.")
    ] = "stats",
    variables: Annotated[str | None, typer.Option(help='Such as "mean_abs,max_abs". [default: all]')] = None,
    stream: Annotated[str | None, typer.Option(help="image or text. [default: both]")] = None,
    prompts: Annotated[str | None, typer.Option(help='Rows, such as "0-9". [default: all]')] = None,
    steps: Annotated[str | None, typer.Option(help='Steps, such as "0,10,19". [default: all]')] = None,
    blocks: Annotated[str | None, typer.Option(help='Blocks, such as "3-5". [default: all]')] = None,
    channels: Annotated[str | None, typer.Option(help='Channels, such as "29". [default: all]')] = None,
    as_json: AsJson = False,
) -> None:
    """Write part of a store as CSV, Parquet or NetCDF, row by row: the store may be larger than memory."""
    from interp.analysis import sources
    from interp.base.errors import InputError
    from interp.store.tables import export as write
    from interp.store.traced_run import open_run

    opened = open_run(run)
    data = _part(opened, what)
    if variables is not None:
        wanted = [name.strip() for name in variables.split(",") if name.strip()]
        absent = [name for name in wanted if name not in data]
        if absent or not wanted:
            raise InputError(f"variables must be some of {', '.join(map(str, data.data_vars))}; got {variables!r}")
        data = data[wanted]
    if stream is not None:
        data = data.sel(stream=[sources.check_stream(data, stream)])
    for axis, chosen in (("prompt", prompts), ("step", steps), ("block", blocks), ("channel", channels)):
        if chosen is not None:
            if axis not in data.dims:
                raise InputError(f"{axis}s: {what} has no {axis} axis; it has {', '.join(map(str, data.dims))}")
            data = sources.choose(data, axis, chosen, f"{axis}s")
    path = write(data, out)
    size = path.stat().st_size
    if as_json:
        print_json({"file": str(path), "bytes": size, "what": what, "axes": {str(axis): n for axis, n in data.sizes.items()}})
        return
    print(path)
    say(f"{decimal(size)}: {', '.join(f'{axis} {n}' for axis, n in data.sizes.items())}")


def _part(opened: Any, what: str) -> Any:
    from interp.base.errors import InputError

    if what.startswith("analysis/"):
        return opened.result(what.removeprefix("analysis/"))
    if what not in ("stats", "gates", "branches", "summary"):
        raise InputError(f"what must be one of stats, gates, branches, summary, or analysis/NAME; got {what!r}")
    data = getattr(opened, what)
    flags = [name for name in data.data_vars if str(name).endswith("present")]
    return data.drop_vars(flags)
