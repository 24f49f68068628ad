"""Several workers give one process's store; one that is killed costs the batch it was at; an outside scheduler works too."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import interp
from interp import cluster
from interp.errors import InputError
from interp.store.verify import verify

TEXTS = ["a red cat", "two dog", "the green circle", "a photo of a dog", "a blue square", "a cat"]
ARGUMENTS = {"steps": 3, "repeats": 2, "record": interp.Record(hidden=True)}


@pytest.fixture(scope="module")
def whole(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> interp.Run:
    return interp.trace(tiny_folder, TEXTS, out=tmp_path_factory.mktemp("whole") / "r.zarr", **ARGUMENTS)


def check_equal(run: interp.Run, whole: interp.Run) -> None:
    """Every number to 1e-5 relative, and NaN where NaN is."""
    assert run.rows_done == whole.rows_done == run.rows_total
    assert run.prompts == whole.prompts
    for name in ("stats", "gates"):
        for variable in getattr(whole, name).data_vars:
            one, other = getattr(run, name)[variable].to_numpy(), getattr(whole, name)[variable].to_numpy()
            assert np.allclose(one, other, rtol=1e-5, atol=1e-6, equal_nan=True), variable
    assert np.allclose(run.hidden["image"]["hidden"], whole.hidden["image"]["hidden"], rtol=1e-5, atol=1e-5)
    assert verify(run.path) == []


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_give_one_processes_store(workers: int, tiny_folder: Path, whole: interp.Run, tmp_path: Path) -> None:
    recipe = cluster.recipe_of(tiny_folder, TEXTS, **ARGUMENTS)
    told: list[int] = []
    environment = dict(os.environ)
    run, done = cluster.trace(
        recipe, tmp_path / "r.zarr", workers=workers, on_progress=lambda state: told.append(state.rows_done)
    )
    check_equal(run, whole)
    assert dict(os.environ) == environment, "dask's settings for its workers stay with them"
    assert sum(done.values()) == 12
    assert told[-1] == 12
    again, nothing = cluster.trace(recipe, tmp_path / "r.zarr", workers=1)
    assert again.rows_done == 12
    assert nothing == {}


def test_a_killed_worker_costs_the_batch_it_was_at(tiny_folder: Path, whole: interp.Run, tmp_path: Path) -> None:
    recipe, out, killed = cluster.recipe_of(tiny_folder, TEXTS, **ARGUMENTS), tmp_path / "r.zarr", []

    def kill_one() -> None:
        for _ in range(2000):
            if (out / "done" / "c").exists() and len(list((out / "done" / "c").iterdir())) >= 3:
                break
            time.sleep(0.02)
        import psutil

        # the largest child is a worker: the others only keep books
        children = [child for child in psutil.Process().children(recursive=True) if child.is_running()]
        largest = max(children, key=lambda child: child.memory_info().rss)
        killed.append(largest.pid)
        largest.kill()

    thread = threading.Thread(target=kill_one)
    thread.start()
    run, done = cluster.trace(recipe, out, workers=2)
    thread.join()
    assert killed, "a worker was killed"
    check_equal(run, whole)
    assert 12 - sum(done.values()) <= 1, "rows whose worker died after writing, before saying so"


def test_a_scheduler_from_outside(tiny_folder: Path, whole: interp.Run, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    file = tmp_path / "scheduler.json"
    base = [sys.executable, "-m", "distributed.cli"]
    scheduler = subprocess.Popen(
        [*base[:2], "distributed.cli.dask_scheduler", "--port", "0", "--scheduler-file", str(file), "--no-dashboard"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    worker = None
    try:
        for _ in range(200):
            if file.exists():
                break
            time.sleep(0.1)
        worker = subprocess.Popen(
            [*base[:2], "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        import json

        address = json.loads(file.read_text())["address"]
        recipe = cluster.recipe_of(tiny_folder, TEXTS, **ARGUMENTS)
        run, done = cluster.trace(recipe, tmp_path / "r.zarr", scheduler=address)
        check_equal(run, whole)
        assert sum(done.values()) == 12
    finally:
        for process in (worker, scheduler):
            if process is not None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)


def test_the_command(tiny_folder: Path, whole: interp.Run, tmp_path: Path) -> None:
    prompts, out = tmp_path / "p.txt", tmp_path / "r.zarr"
    prompts.write_text("\n".join(TEXTS))
    command = [
        sys.executable,
        "-m",
        "interp",
        "trace",
        "--model",
        str(tiny_folder),
        "--prompts",
        str(prompts),
        "--out",
        str(out),
    ]
    command += ["--steps", "3", "--repeats", "2", "--record", "stats,gates,hidden", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "prompts/min" in done.stderr
    check_equal(interp.open_run(out), whole)
    wrong = subprocess.run([*command, "--shard", "0/2"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "workers and scheduler do not go with --shard" in wrong.stderr


def test_ctrl_c_lets_workers_finish_what_they_are_at(tiny_folder: Path, tmp_path: Path) -> None:
    """A terminal sends SIGINT to the workers too."""
    prompts, out = tmp_path / "p.txt", tmp_path / "r.zarr"
    prompts.write_text("\n".join(f"a cat {n}" for n in range(60)))
    command = [sys.executable, "-m", "interp", "trace", "--model", str(tiny_folder), "--prompts", str(prompts)]
    command += ["--out", str(out), "--steps", "8", "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for _ in range(1200):
        if (out / "done" / "c" / "2").exists():
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "rows already done are kept" in errors
    assert 3 <= interp.open_run(out).rows_done < 60
    assert verify(out) == []


def test_refusals(tiny_folder: Path, tmp_path: Path) -> None:
    recipe = cluster.recipe_of(tiny_folder, TEXTS[:1], steps=2)
    with pytest.raises(InputError, match="workers and scheduler: give one of them"):
        cluster.trace(recipe, tmp_path / "r.zarr")
    with pytest.raises(InputError, match="workers must be an integer of at least 1"):
        cluster.trace(recipe, tmp_path / "r.zarr", workers=0)
    own = interp.SiteRecorder("norms", "block.*/image/hidden", lambda site, step, x: x.norm(dim=-1), axes={"token": 16})
    with pytest.raises(InputError, match="recorders of your own are functions"):
        cluster.recipe_of(tiny_folder, TEXTS, record=interp.Record(recorders=(own,)))
