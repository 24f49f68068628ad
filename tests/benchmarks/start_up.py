"""How long the command takes to start: `interp --help` and `import interp` next to a bare `python -c pass`, in turns."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from common import Options, interval, shown, table, turns

TITLE = "Start-up"
COMMANDS = {
    "python": ["-c", "pass"],
    "import interp": ["-c", "import interp"],
    "interp --help": ["-m", "interp", "--help"],
    "interp models": ["-m", "interp", "models"],
}


def measure(options: Options) -> dict[str, Any]:
    """Seconds of each, and over bare python."""

    def start(words: list[str]) -> None:
        subprocess.run([sys.executable, *words], check=True, capture_output=True)

    rounds = turns({name: lambda words=words: start(words) for name, words in COMMANDS.items()}, 2 * options.rounds)  # type: ignore[misc]
    return {
        "seconds": {name: interval([one[name] for one in rounds]) for name in COMMANDS},
        "over python": {name: interval([one[name] - one["python"] for one in rounds]) for name in COMMANDS if name != "python"},
    }


def page(report: dict[str, Any]) -> str:
    """The docs' table."""
    over = report["over python"]
    rows = [[name, shown(value), shown(over[name]) if name in over else ""] for name, value in report["seconds"].items()]
    return table(["", "seconds", "over python"], rows)
