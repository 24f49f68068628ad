"""A killed trace is continued by the same command: nothing lost, doubled or changed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import trace_command

import interp
from interp.base.executor import Progress

PROMPTS = [f"a red circle and {number} blue square" for number in range(40)]


def start(model: Path, prompts: Path, out: Path) -> subprocess.Popen[bytes]:
    command = trace_command(model, prompts, out, "--steps", "12", "--record", "stats,gates,hidden", "--batch-size", "2")
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def rows_done(out: Path) -> int:
    return int(np.asarray(zarr.open_group(str(out), mode="r")["done"]).sum()) if (out / "zarr.json").exists() else 0


def kill_and_resume(model: Path, folder: Path, kills: int, seed: int) -> tuple[Path, list[int]]:
    """Start again and again, and SIGKILL each once it has done a row and is in the midst of the next ones.

    Returns the finished store, and how many rows were done at each kill.
    """
    draw = random.Random(seed)
    prompts, out = folder / "prompts.txt", folder / "killed.zarr"
    prompts.write_text("\n".join(PROMPTS))
    counts: list[int] = []
    for _ in range(kills):
        before = rows_done(out)
        process = start(model, prompts, out)
        while process.poll() is None and rows_done(out) == before:
            time.sleep(0.002)
        time.sleep(draw.uniform(0.0, 0.15))
        if process.poll() is not None:
            pytest.fail(f"the trace ended by itself after {len(counts)} kills: {process.returncode}")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        counts.append(rows_done(out))
    assert start(model, prompts, out).wait() == 0
    return out, counts


def assert_same_store(a: Path, b: Path) -> None:
    """Every array of the two stores, bit for bit."""
    first, second = zarr.open_group(str(a), mode="r"), zarr.open_group(str(b), mode="r")
    names = {name for name, node in first.members(max_depth=None) if isinstance(node, zarr.Array)}
    assert names == {name for name, node in second.members(max_depth=None) if isinstance(node, zarr.Array)}
    for name in names:
        x, y = np.asarray(first[name][...]), np.asarray(second[name][...])
        assert x.dtype == y.dtype
        assert np.array_equal(x, y, equal_nan=x.dtype.kind == "f"), name


@pytest.mark.processes
def test_killed_and_resumed_equals_uninterrupted(tiny_folder: Path, tmp_path: Path) -> None:
    """Through the command line; docs/faults.md has the campaign of every kind of fault."""
    out, counts = kill_and_resume(tiny_folder, tmp_path, kills=3, seed=0)
    whole = tmp_path / "whole.zarr"
    assert start(tiny_folder, tmp_path / "prompts.txt", whole).wait() == 0
    assert 0 < counts[0] < counts[1] < counts[2] < len(PROMPTS)
    run = interp.open_run(out)
    assert run.rows_done == run.rows_total == len(PROMPTS)
    assert run.prompts == PROMPTS
    assert_same_store(out, whole)


def test_a_finished_run_is_not_traced_again(tiny_run: interp.Run, tiny_model: interp.Model) -> None:
    from conftest import PROMPTS as TEXTS

    seen: list[Progress] = []
    files = {
        path: path.stat().st_mtime_ns for path in tiny_run.path.rglob("*") if path.is_file() and "summary" not in str(path)
    }
    record = interp.Record(hidden=True, modulation=True, latents="all")
    interp.trace(tiny_model, TEXTS, out=tiny_run.path, record=record, repeats=2, on_progress=seen.append)
    assert seen == []
    assert files == {path: path.stat().st_mtime_ns for path in files}
