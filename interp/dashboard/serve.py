"""Serve the pages from this process. Their imports are done first, so that the first page loads quickly."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from interp.base.errors import InputError

FIXED = {
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "logger.level": "warning",
    "server.showEmailPrompt": "false",
}


def app() -> Path:
    """The folder of the pages: in the wheel, or next to the package in a checkout."""
    here = Path(__file__).parent
    for path in (here / "app" / "app.py", here.parent.parent / "dashboards" / "app.py"):
        if path.is_file():
            return path
    raise InputError("the dashboard's pages are not installed; install interp from a wheel, or from its repository")


def serve(roots: Sequence[Path], options: Mapping[str, str]) -> None:
    """Serve until interrupted; the exit code is Streamlit's."""
    from streamlit.web import cli

    import interp.analysis.comparison
    import interp.dashboard.choose
    import interp.dashboard.panel
    import interp.dashboard.pictures  # noqa: F401
    from interp.figures import causes, channels, drawn, effects, guidance, maps  # noqa: F401

    words = [f"--{name}={value}" for name, value in {**FIXED, **options}.items()]
    sys.argv = ["streamlit", "run", str(app()), *words, "--", *map(str, roots)]
    cli.main(prog_name="streamlit")
