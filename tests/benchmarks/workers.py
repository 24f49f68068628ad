"""One process, and two workers, on the same rows of a random model of SD3's shape. Workers have one thread each, one process
is measured with one thread and with two; and "two by hand" are two processes that each trace half of the rows with `--shard`,
with no scheduler between them: what two processes can reach on this machine. The loading of Python and of the model is
measured apart, since it is paid once a worker whatever the run's length.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import Options, interval, ratio, shown, table

from interp.models import tiny

TITLE = "Two workers against one"
SHAPE = {"blocks": 12, "heads": 8, "head_width": 64, "resolution": 128}
PROMPTS, STEPS = 16, 10
WAYS: dict[str, int | str] = {
    "one process, 1 thread": 1,
    "one process, 2 threads": 2,
    "2 workers": "workers",
    "two by hand": "hand",
}


def measure(options: Options) -> dict[str, Any]:
    """Seconds of each way, for few rows and for many; per row, start-up taken off."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny.build("sd3", folder / "model", **SHAPE)
        rounds: list[dict[str, float]] = []
        for number in range(options.rounds):
            one: dict[str, float] = {}
            for way in list(WAYS) if number % 2 else list(reversed(WAYS)):
                few, many = (_seconds(model, folder, WAYS[way], count) for count in (2, PROMPTS))
                one[way] = (many - few) / (PROMPTS - 2)
                one[f"{way}, start"] = few - 2 * one[way]
            rounds.append(one)
    names = [name for name in rounds[0] if not name.endswith(", start")]
    return {
        "model": SHAPE,
        "prompts": PROMPTS,
        "steps": STEPS,
        "rounds": options.rounds,
        "seconds a row": {name: interval([one[name] for one in rounds]) for name in names},
        "start, s": {name: interval([one[f"{name}, start"] for one in rounds], 1) for name in names},
        "throughput over one thread": {name: ratio(rounds, "one process, 1 thread", name) for name in names},
    }


def _seconds(model: Path, folder: Path, way: int | str, count: int) -> float:
    prompts, out = folder / f"{count}.txt", folder / "run.zarr"
    prompts.write_text("\n".join(f"a red cat {number}" for number in range(count)))
    shutil.rmtree(out, ignore_errors=True)
    words = ["trace", "--model", str(model), "--prompts", str(prompts), "--out", str(out), "--steps", str(STEPS)]
    more = {"workers": [["--workers", "2"]], "hand": [["--shard", "0/2"], ["--shard", "1/2"]]}.get(str(way), [[]])
    environment = {**os.environ, "OMP_NUM_THREADS": str(way) if isinstance(way, int) else "1"}
    start = time.perf_counter()
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "interp", *words, *one],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for one in more
    ]
    codes = [process.wait() for process in running]
    assert not any(codes), codes
    return time.perf_counter() - start


def page(report: dict[str, Any]) -> str:
    """The docs' table, and what it says."""
    speed = report["throughput over one thread"]
    rows = [
        [name, shown(report["seconds a row"][name]), shown(report["start, s"][name]), shown(speed[name])]
        for name in report["seconds a row"]
    ]
    reached = speed["2 workers"]["median"] / speed["two by hand"]["median"]
    beside = speed["2 workers"]["median"] / speed["one process, 2 threads"]["median"]
    two, hand = speed["2 workers"]["median"], speed["two by hand"]["median"]
    text = (
        f"Two workers trace {two:.2f} times as many rows a minute as one process of one thread, and {beside:.2f} times as"
        " many as one process that uses both cores. Two processes that share the rows without a scheduler reach"
        f" {hand:.2f} of 2: that much two processes can do on this machine, and the scheduler keeps {100 * reached:.0f}% of it."
        " The rest goes to units that do not end together (a worker that is done early has nothing left to take) and to what"
        " surrounds each unit: a row is on disk before the next one begins, where one process writes while it computes. The"
        " start is that of Python, of the workers and of the model in each; it is paid once."
    )
    columns = ["", "seconds a row", "start, s", "rows a minute over one thread"]
    return "\n\n".join([f"{report['prompts']} prompts x {report['steps']} steps.", table(columns, rows), text])
