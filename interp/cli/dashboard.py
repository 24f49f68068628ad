"""`interp dashboard`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from interp.cli.console import say


def dashboard(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN]...", help="Stores, or folders of stores. [default: cache/, or here]")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8501,
    host: Annotated[str, typer.Option(help="Address to serve on; localhost allows this machine only.")] = "localhost",
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Explore stores in a browser: runs, massive channels, experiments, guidance, a blind study. Loads no model."""
    from interp.base.errors import InputError

    if importlib.util.find_spec("streamlit") is None:
        raise InputError("the dashboard needs streamlit: pip install 'interp[dashboard]'")
    from interp.dashboard import roots
    from interp.dashboard.serve import serve

    where = roots.parse([str(run) for run in runs or []])
    if host not in ("localhost", "127.0.0.1", "::1"):
        say(f"anyone who can reach {host} can read these stores and add answers to studies: there is no password")
    options = {"server.address": host, "server.port": str(port), "server.headless": str(not browser).lower()}
    say(f"http://{host}:{port}   (Ctrl-C to stop)")
    serve(where, options)
