"""Analyses of a store of FLUX.1's shape that does not fit in memory, each next to only reading what it needs: prompts x 50
steps x 57 blocks x 3,072 channels of one stream, synthetic values with two massive channels in them. With 100 prompts that is
3.5 GB a statistic, six of them. Every measurement is a process of its own; reading and analysis alternate, and the page cache
is warm for both.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import Options, table

import interp
from interp.base.streams import Stream
from interp.store.create import create, zarr_quiet
from interp.store.schema import HiddenAxes, Schema, StreamAxes
from interp.store.writer import Writer

TITLE = "Analyses of a store that does not fit in memory"
STEPS, BLOCKS, CHANNELS = 50, 57, 3072
MASSIVE = (154, 1446)
ALL = ["stats/mean", "stats/mean_abs", "stats/max_abs", "stats/min_abs", "stats/var", "gates/alpha"]
NEEDS = {
    "massive": ["stats/mean_abs"],
    "attribute": ["stats/mean_abs"],
    "alignment": ["gates/alpha", "stats/mean_abs", "stats/mean"],
    "trend": ["stats/mean_abs"],
    "stability": ["stats/mean_abs"],
    "energy": ["stats/mean", "stats/var"],
    "outliers": ["stats/mean", "stats/max_abs", "stats/var"],
    "summary": ALL,
    "verify": ALL,
    "export two channels, Parquet": ["stats/mean_abs"],
    "export a statistic, NetCDF": ["stats/mean_abs"],
    "merge": ALL,
}


def schema(prompts: int, hidden: Mapping[str, HiddenAxes] | None = None) -> Schema:
    """The axes of such a store."""
    present, stream = np.ones((BLOCKS, 1), bool), Stream("image", "generated", CHANNELS, ("y", "x"))
    return Schema(
        prompt_text=tuple(f"prompt {number}" for number in range(prompts)),
        seed=(0,) * prompts,
        timestep=np.linspace(1000, 20, STEPS),
        sigma=np.linspace(1, 0.02, STEPS),
        block_path=tuple(f"block.{number}" for number in range(BLOCKS)),
        block_kind=("synthetic",) * BLOCKS,
        streams={"image": StreamAxes(stream, (1, 1), present[:, 0], {"alpha": present}, present)},
        gates=("attn",),
        image=(8, 8),
        latents={"latent_channel": 1},
        latents_every_step=False,
        prediction=(),
        statistics=True,
        gate_kinds=("alpha",),
        branches=False,
        hidden=hidden or {},
    )


def build(path: Path, prompts: int) -> None:
    """A finished store with two massive channels that the timestep sets."""
    made = schema(prompts)
    digest = hashlib.sha256(json.dumps(made.prompt_text).encode()).hexdigest()[:16]
    plan = {
        "model": "synthetic",
        "record": {"stats": True, "gates": True},
        "dtype": "float32",
        "steps": STEPS,
        "prompts": f"{prompts} prompts, sha256 {digest}",
        "seed": 0,
        "repeats": 1,
    }
    create(path, made, {"plan": plan, "provenance": {}})
    level = np.random.default_rng(0).lognormal(0, 0.3, (1, BLOCKS, CHANNELS)).astype(np.float32)
    with zarr_quiet(), Writer(path) as writer:
        for row in range(prompts):
            draw = np.random.default_rng(row + 1)
            size = np.abs(level * (1 + 0.1 * draw.standard_normal((STEPS, BLOCKS, CHANNELS), np.float32)))
            size[..., list(MASSIVE)] = 40 + np.linspace(0, 20, STEPS, dtype=np.float32)[:, None, None] + draw.normal()
            values = {"mean": 0.5 * size, "mean_abs": size, "max_abs": 3 * size, "min_abs": 0.1 * size, "var": size**2}
            statistics = {**values, "median_abs": np.ones((STEPS, BLOCKS), np.float32)}
            outputs = {"image": np.zeros((8, 8, 3), np.uint8), "latents": np.zeros(1, np.float32)}
            alpha = {"alpha": (0.1 * size)[:, :, None]}
            writer.row(row, {"stats/image": statistics, "gates/image": alpha, "outputs": outputs})


def read(run: interp.Run, names: list[str]) -> None:
    """Merely read: every value of some variables, one prompt at a time, nothing computed."""
    for name in names:
        group, variable = name.split("/")
        array = (run.stats if group == "stats" else run.gates)[variable]
        for row in range(array.sizes["prompt"]):
            array.isel(prompt=row).to_numpy()


def analyses(run: interp.Run) -> dict[str, Callable[[], Any]]:
    """The analyses by name."""
    from interp.analysis import alignment, attribution, energy, massive, stability, trend
    from interp.store.merging import merge
    from interp.store.reader import StoreReader
    from interp.store.summary import summarise
    from interp.store.tables import export
    from interp.store.verification import verify

    beside = run.path.with_name("exported")
    selected = run.stats[["mean_abs"]].isel(channel=list(MASSIVE))
    return {
        "massive": lambda: massive.find(run),
        "attribute": lambda: attribution.decompose(run, list(MASSIVE)),
        "alignment": lambda: alignment.compare(run),
        "trend": lambda: trend.over_timesteps(run, list(MASSIVE)),
        "stability": lambda: stability.sets(run, 8),
        "energy": lambda: energy.shares(run),
        "outliers": lambda: energy.outliers(run),
        "summary": lambda: summarise(StoreReader(run.path)),
        "verify": lambda: verify(run.path),
        "export two channels, Parquet": lambda: export(selected, beside.with_suffix(".parquet")),
        "export a statistic, NetCDF": lambda: export(run.stats[["mean_abs"]], beside.with_suffix(".nc")),
        "merge": lambda: merge(run.path.with_name("merged.zarr"), [run.path]),
    }


def one(path: Path, what: str, name: str) -> None:
    """In a process of its own: seconds and peak memory, as JSON."""
    run = interp.open_run(path)
    _ = run.stats, run.gates
    started = time.perf_counter()
    result = analyses(run)[name]() if what == "analysis" else read(run, NEEDS[name])
    seconds = time.perf_counter() - started
    if name == "massive" and what == "analysis":
        assert result is not None
        assert tuple(result["channel"].to_numpy()[result["consensus"].to_numpy()[0]]) == MASSIVE
    if name == "verify" and what == "analysis":
        assert result == []
    peak = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "gigabytes": peak * 1024 / 1e9}))


def child(path: Path, what: str, name: str) -> dict[str, float]:
    """Run `one` in a new process."""
    done = subprocess.run([sys.executable, __file__, str(path), what, name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(options: Options) -> dict[str, Any]:
    """Seconds and peak memory of each, next to reading."""
    import shutil

    found: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = folder / f"flux-{options.prompts}.zarr"
        if not path.exists():
            build(path, options.prompts)
        rounds = min(options.rounds, 2)
        for name in NEEDS:
            child(path, "read", name)  # warms the page cache
            pairs = []
            for _ in range(rounds):
                pairs.append((child(path, "read", name), child(path, "analysis", name)))
                for left in ("exported.parquet", "exported.nc", "merged.zarr"):
                    (path.parent / left).unlink(missing_ok=True) if left != "merged.zarr" else shutil.rmtree(
                        path.parent / left, ignore_errors=True
                    )
            reads, takes = (float(np.median([pair[i]["seconds"] for pair in pairs])) for i in (0, 1))
            memory = max(pair[1]["gigabytes"] for pair in pairs)
            found[name] = {"reads": round(reads, 1), "takes": round(takes, 1), "gigabytes": round(memory, 2)}
    statistic = options.prompts * STEPS * BLOCKS * CHANNELS * 4 / 1e9
    return {"prompts": options.prompts, "gigabytes a statistic": round(statistic, 2), "rounds": rounds, "analyses": found}


def page(report: dict[str, Any]) -> str:
    """The docs' table."""
    rows = []
    for name, one in report["analyses"].items():
        times = one["takes"] / one["reads"]
        target = {"massive": 2, "attribute": 2, "alignment": 2, "summary": 2}.get(name)
        verdict = "" if target is None else ("met" if times <= target else "**not met**")
        memory = f"{one['gigabytes']:.2f} ({'met' if one['gigabytes'] < 4 else '**not met**'})"
        rows.append([name, f"{one['reads']:.1f}", f"{one['takes']:.1f}", f"{times:.2f}", verdict, memory])
    about = (
        f"{report['prompts']} prompts, {report['gigabytes a statistic']} GB a statistic; medians of {report['rounds']} rounds."
    )
    columns = ["", "reads, s", "takes, s", "ratio", "target 2", "peak memory, GB (target 4)"]
    return about + "\n\n" + table(columns, rows)


if __name__ == "__main__":
    one(Path(sys.argv[1]), *sys.argv[2:4])
