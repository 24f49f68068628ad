"""How long the command takes to start: `interp --help` and `import interp` against a bare `python -c pass`, side by side."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np

COMMANDS = {
    "python": ["-c", "pass"],
    "import interp": ["-c", "import interp"],
    "interp --help": ["-m", "interp", "--help"],
}


def main(rounds: int = 15) -> None:
    """Print the median seconds of each, and the excess over bare python."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, words in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            times[name].append(time.perf_counter() - start)
    medians = {name: round(float(np.median(values)), 3) for name, values in times.items()}
    excess = {name: round(value - medians["python"], 3) for name, value in medians.items()}
    print(json.dumps({"seconds": medians, "over bare python": excess}, indent=2))


if __name__ == "__main__":
    main()
