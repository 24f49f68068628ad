"""All that wants a card, in one command of under five minutes: the tests of the kernel, and what tracing costs at FLUX.1's and
Stable Diffusion 3.5 Large's size.

    python tests/benchmarks/card.py [--dry-run]     (make bench-card; the dry run does the same on small CPU models)
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
CARD = ["--device", "cuda", "--dtype", "bfloat16"]


def main() -> None:
    """Run each part in a process of its own, so that one that fails leaves the others."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--dry-run", action="store_true")
    dry = parser.parse_args().dry_run
    with tempfile.TemporaryDirectory() as folder:
        where = ["--out", f"{folder}/benchmarks.json", "--rounds", "1"] if dry else [*CARD, "--rounds", "4"]
        bench = [sys.executable, str(HERE / "bench.py"), "--only", "tracing", *where]
        parts = {
            "kernel": [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                str(HERE.parent / "test_statistics.py"),
                str(HERE.parent / "test_cost.py"),
            ],
            "flux": [*bench, "--size", "small" if dry else "flux", "--limit", "80"],
            "sd3.5-large": [*bench, "--size", "small" if dry else "sd3.5-large", "--limit", "45"],
        }
        for name, command in parts.items():
            start = time.perf_counter()
            done = subprocess.run(command, check=False)
            print(f"{name}: {'done' if done.returncode == 0 else 'FAILED'} in {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
