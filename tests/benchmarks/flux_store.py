"""Analyses of a store of FLUX.1's shape that does not fit in memory, each beside merely reading what it needs.

    python tests/benchmarks/flux_store.py [--prompts 100] [--folder DIR]

100 prompts x 50 steps x 57 blocks x 3,072 channels of one stream: 3.5 GB a statistic, six of them. Values are synthetic. Every
measurement is a process of its own; reading and analysis alternate, and the page cache is warm for both.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import interp
from interp.store.create import create, zarr_quiet
from interp.store.schema import Schema
from interp.store.writer import Writer

STEPS, BLOCKS, CHANNELS = 50, 57, 3072
MASSIVE = (154, 1446)
NEEDS = {
    "massive": ["stats/mean_abs"],
    "attribute": ["stats/mean_abs"],
    "alignment": ["gates/alpha", "stats/mean_abs", "stats/mean"],
    "summary": ["stats/mean", "stats/mean_abs", "stats/max_abs", "stats/min_abs", "stats/var", "gates/alpha"],
}


def build(path: Path, prompts: int) -> None:
    """A finished store with two massive channels that the timestep sets."""
    present = np.ones((BLOCKS, 1), bool)
    schema = Schema(
        prompt_text=tuple(f"prompt {number}" for number in range(prompts)),
        seed=(0,) * prompts,
        timestep=np.linspace(1000, 20, STEPS),
        sigma=np.linspace(1, 0.02, STEPS),
        block_path=tuple(f"block.{number}" for number in range(BLOCKS)),
        block_kind=("synthetic",) * BLOCKS,
        streams=("image",),
        gates=("attn",),
        channels=CHANNELS,
        stream_present=present,
        gate_present={"alpha": present[..., None]},
        image=(8, 8),
        latents={"latent_channel": 1},
        latents_every_step=False,
        prediction=(),
        statistics=True,
        gate_kinds=("alpha",),
        branches=False,
        hidden={},
    )
    plan = {"model": "synthetic", "record": {"stats": True, "gates": True}, "dtype": "float32", "steps": STEPS}
    create(path, schema, {"plan": plan, "provenance": {}})
    level = np.random.default_rng(0).lognormal(0, 0.3, (1, BLOCKS, 1, CHANNELS)).astype(np.float32)
    with zarr_quiet(), Writer(path) as writer:
        for row in range(prompts):
            draw = np.random.default_rng(row + 1)
            size = level * (1 + 0.1 * draw.standard_normal((STEPS, BLOCKS, 1, CHANNELS), np.float32))
            size[..., list(MASSIVE)] = 40 + np.linspace(0, 20, STEPS, dtype=np.float32)[:, None, None, None] + draw.normal()
            values = {"mean": 0.5 * size, "mean_abs": size, "max_abs": 3 * size, "min_abs": 0.1 * size, "var": size**2}
            statistics = {**values, "median_abs": np.ones((STEPS, BLOCKS, 1), np.float32)}
            outputs = {"image": np.zeros((8, 8, 3), np.uint8), "latents": np.zeros(1, np.float32)}
            alpha = {"alpha": (0.1 * size)[:, :, :, None]}
            writer.row(row, {"stats": statistics, "gates": alpha, "outputs": outputs})


def read(run: interp.Run, names: list[str]) -> None:
    """Merely read: every value of some variables, one prompt at a time, nothing computed."""
    for name in names:
        group, variable = name.split("/")
        array = (run.stats if group == "stats" else run.gates)[variable]
        for row in range(array.sizes["prompt"]):
            array.isel(prompt=row).to_numpy()


def analyses(run: interp.Run) -> dict[str, Callable[[], Any]]:
    """The analyses by name."""
    from interp.analysis import alignment, attribution, massive
    from interp.store.reader import Shelf
    from interp.store.summary import summarise

    return {
        "massive": lambda: massive.find(run),
        "attribute": lambda: attribution.decompose(run, list(MASSIVE)),
        "alignment": lambda: alignment.compare(run),
        "summary": lambda: summarise(Shelf(run.path)),
    }


def measure(path: Path, what: str, name: str) -> None:
    """In a process of its own: seconds and peak memory, as JSON."""
    run = interp.open_run(path)
    _ = run.stats, run.gates
    started = time.perf_counter()
    result = analyses(run)[name]() if what == "analysis" else read(run, NEEDS[name])
    seconds = time.perf_counter() - started
    if name == "massive" and what == "analysis":
        assert result is not None
        assert tuple(result["channel"].to_numpy()[result["consensus"].to_numpy()[0]]) == MASSIVE
    print(json.dumps({"seconds": seconds, "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}))


def child(path: Path, what: str, name: str) -> dict[str, float]:
    """Run `measure` in a new process."""
    command = [sys.executable, __file__, "--measure", what, name, "--folder", str(path.parent)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Build the store and print the table of docs/benchmarks.md."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--prompts", type=int, default=100)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--measure", nargs=2, metavar=("WHAT", "NAME"))
    given = arguments.parse_args()
    if given.measure:
        measure(given.folder / "flux.zarr", *given.measure)
        return
    with tempfile.TemporaryDirectory() as temporary:
        path = (given.folder or Path(temporary)) / "flux.zarr"
        if not path.exists():
            build(path, given.prompts)
        print("| analysis | reads, s | takes, s | ratio | peak memory, GB |\n|---|---|---|---|---|")
        for name in NEEDS:
            child(path, "read", name)  # warms the page cache
            rounds = [(child(path, "read", name), child(path, "analysis", name)) for _ in range(given.rounds)]
            reads, takes = (float(np.median([pair[i]["seconds"] for pair in rounds])) for i in (0, 1))
            memory = max(pair[1]["gigabytes"] for pair in rounds)
            print(f"| {name} | {reads:.1f} | {takes:.1f} | {takes / reads:.2f} | {memory:.2f} |", flush=True)


if __name__ == "__main__":
    main()
