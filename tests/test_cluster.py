"""Several workers give one process's store; one that is killed costs the batch it was at; an outside scheduler works too."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest
import torch
from conftest import trace_command
from messages import names, refused

import interp
from interp.base.errors import InputError, ModelError, StoreError
from interp.runs import cluster
from interp.store.verification import verify

pytestmark = pytest.mark.processes
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


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.full)])
def test_workers_give_one_processes_store(workers: int, tiny_model: interp.Model, whole: interp.Run, tmp_path: Path) -> None:
    told: list[int] = []
    environment = dict(os.environ)
    through = interp.Workers(workers)
    given = {"out": tmp_path / "r.zarr", **ARGUMENTS}
    run = interp.trace(tiny_model, TEXTS, through=through, on_progress=lambda state: told.append(state.done), **given)
    check_equal(run, whole)
    assert dict(os.environ) == environment, "dask's settings for its workers stay with them"
    assert sum(through.done.values()) == 12
    assert told[-1] == 12
    assert run.provenance["threads"] == 1
    again = interp.trace(tiny_model, TEXTS, through=(idle := interp.Workers(1)), **given)
    assert again.rows_done == 12
    assert not idle.done


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)


def counting(file: Path) -> interp.SiteRecorder:
    """Counts traces: each appends a line as it begins, whoever traces and whatever becomes of it."""

    def count(site: Any, step: int, value: Any) -> Any:
        if step == 0:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(descriptor, b"begun\n" * len(value))
            os.close(descriptor)
        return value.mean((1, 2))[:, None]

    return interp.SiteRecorder("begun", "block.0/image/hidden", count, axes={"one": 1})


def test_a_killed_worker_costs_the_rows_in_flight(tiny_model: interp.Model, whole: interp.Run, tmp_path: Path) -> None:
    out, killed = tmp_path / "r.zarr", []

    def kill_one() -> None:
        done = out / "done" / "c"
        wait_for(lambda: done.exists() and len(list(done.iterdir())) >= 3)
        import psutil

        # the largest child is a worker: the others only keep books
        children = [child for child in psutil.Process().children(recursive=True) if child.is_running()]
        largest = max(children, key=lambda child: child.memory_info().rss)
        killed.append(largest.pid)
        largest.kill()

    record = interp.Record(hidden=True, recorders=(counting(tmp_path / "begun"),))
    thread = threading.Thread(target=kill_one)
    thread.start()
    through = interp.Workers(2)
    run = interp.trace(tiny_model, TEXTS, out=out, through=through, **{**ARGUMENTS, "record": record})
    thread.join()
    assert killed, "a worker was killed"
    check_equal(run, whole)
    begun = len((tmp_path / "begun").read_text().splitlines())
    assert 12 <= begun <= 13, f"{begun} traces for 12 rows: one worker died, which had one row in flight"
    assert 12 - sum(through.done.values()) <= 1, "a row whose worker died after writing, before saying so"


def test_experiments_through_workers(tiny_model: interp.Model, tmp_path: Path) -> None:
    """Closures, donors and guidance travel; pictures are those of one process."""
    from interp.experiments.kinds.disrupt import disrupt
    from interp.experiments.kinds.patch import patch
    from interp.experiments.kinds.sweep import sweep

    run = interp.trace(tiny_model, TEXTS[:2], out=tmp_path / "run.zarr", steps=2)
    made: dict[str, Callable[[Path], Any]] = {
        "disrupt": lambda out: disrupt(
            tiny_model, TEXTS[:3], out=out, channels="1,5", run=run, steps=2, controls=1, blocks=[1]
        ),
        "patch": lambda out: patch(
            tiny_model, TEXTS[:2], TEXTS[2:4], out=out, what=["hidden"], channels="1,5", run=run, steps=2
        ),
        "sweep": lambda out: sweep(tiny_model, TEXTS[:3], ["none", "cfg:2", "dg:1:channels=3:block=1"], out=out, steps=2),
        "lens": lambda out: interp.lens(tiny_model, TEXTS[:3], out=out, without=[5], run=run, blocks=[1], steps=2),
    }
    through = interp.Workers(2)
    for name, prepare in made.items():
        alone = prepare(tmp_path / f"{name}-alone.zarr").run(batch_size=2)
        told: list[int] = []
        many = prepare(tmp_path / f"{name}-many.zarr").run(
            batch_size=2, through=through, on_progress=lambda state, told=told: told.append(state.done)
        )
        assert many.finished
        assert told == list(range(1, many.planned.sum() + 1)), "every cell is told once"
        for prompt, arm in np.argwhere(many.done):
            near = np.abs(many.picture(prompt, arm).astype(int) - alone.picture(prompt, arm).astype(int)).max()
            assert near <= 1, (name, prompt, arm)
            assert np.allclose(many.latents(prompt, arm), alone.latents(prompt, arm), rtol=1e-4, atol=1e-4)
        for result in alone.results:
            assert many.result(result).sizes == alone.result(result).sizes
    assert len(through.done) == 2, "both had work"


def test_what_measures_goes_through_workers(tiny_model: interp.Model, tmp_path: Path) -> None:
    """Numbers alone: the result is that of one process, and nothing is left beside the store."""
    run = interp.trace(tiny_model, TEXTS[:2], out=tmp_path / "run.zarr", steps=2)
    made: dict[str, Callable[[Path], Any]] = {
        "swap": lambda out: interp.swap(tiny_model, TEXTS[:3], out=out, channels=[5], run=run, steps=2),
        "gates": lambda out: interp.gates(tiny_model, TEXTS[:3], out=out, channels=[5], timesteps=3),
        "govern": lambda out: interp.govern(tiny_model, TEXTS[:2], out=out, channels=[5], blocks=[1], steps=2),
    }
    through = interp.Workers(2)
    for name, prepare in made.items():
        alone = prepare(tmp_path / f"{name}-alone.zarr").run().result(name)
        many = prepare(tmp_path / f"{name}-many.zarr").run(through=through).result(name)
        assert sum(through.done.values()) > 1
        assert not (tmp_path / f"{name}-many-rows").exists()
        for variable, values in alone.data_vars.items():
            np.testing.assert_allclose(many[variable], values, rtol=1e-3, atol=1e-5, err_msg=f"{name} {variable}")


@pytest.mark.filterwarnings("ignore:no worker has joined")
def test_a_scheduler_from_outside(tiny_model: interp.Model, whole: interp.Run, tmp_path: Path) -> None:
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
        wait_for(lambda: file.exists() and file.read_text().rstrip().endswith("}"))
        worker = subprocess.Popen(
            [*base[:2], "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        address = json.loads(file.read_text())["address"]
        through = interp.Workers(scheduler=address, device="cpu")
        run = interp.trace(tiny_model, TEXTS, out=tmp_path / "r.zarr", through=through, **ARGUMENTS)
        check_equal(run, whole)
        assert sum(through.done.values()) == 12
    finally:
        for process in (worker, scheduler):
            if process is not None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)


def test_the_command(tiny_folder: Path, whole: interp.Run, tmp_path: Path) -> None:
    prompts, out = tmp_path / "p.txt", tmp_path / "r.zarr"
    prompts.write_text("\n".join(TEXTS))
    more = ["--steps", "3", "--repeats", "2", "--record", "stats,gates,hidden", "--workers", "2"]
    command = trace_command(tiny_folder, prompts, out, *more)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert names(done.stderr, "minute") == []
    check_equal(interp.open_run(out), whole)
    wrong = subprocess.run([*command, "--shard", "0/2"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert names(wrong.stderr, "workers", "scheduler", "--shard") == []


def test_ctrl_c_lets_workers_finish_what_they_are_at(tiny_folder: Path, tmp_path: Path) -> None:
    """A terminal sends SIGINT to the workers too."""
    prompts, out = tmp_path / "p.txt", tmp_path / "r.zarr"
    prompts.write_text("\n".join(f"a cat {n}" for n in range(60)))
    command = trace_command(tiny_folder, prompts, out, "--steps", "8", "--workers", "2")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_for(lambda: (out / "done" / "c" / "2").exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=240)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert names(errors, "rows") == []
    assert 3 <= interp.open_run(out).rows_done < 60
    assert verify(out) == []


def test_a_heartbeat_unanswered_is_not_said_by_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    """Its scheduler closes first, now and then; other failures are said."""
    from distributed.comm import CommClosedError

    log = logging.getLogger("distributed.worker")
    log.addFilter(cluster._of_a_lost_scheduler)
    try:
        for error, text in (
            (CommClosedError(), "during heartbeat."),
            (CommClosedError(), "no answer"),
            (KeyError(), "heartbeat"),
        ):
            try:
                raise error
            except (OSError, KeyError):
                log.exception(text)
    finally:
        log.removeFilter(cluster._of_a_lost_scheduler)
    assert [record.getMessage() for record in caplog.records] == ["no answer", "heartbeat"]


def test_refusals(tiny_model: interp.Model, tmp_path: Path) -> None:
    with refused(InputError, "workers", "scheduler"):
        interp.Workers()
    with refused(InputError, "workers", "integer", 1, 0):
        interp.Workers(0)
    by_hand = interp.wrap(tiny_model.pipe)
    with refused(InputError, "pipeline"):
        interp.trace(by_hand, TEXTS[:1], out=tmp_path / "r.zarr", steps=2, through=interp.Workers(1))
    with refused(InputError, "device", "scheduler"):
        interp.Workers(scheduler="tcp://somewhere:8786")
    unreachable = interp.Workers(scheduler="nonsense://here", device="cpu")
    with refused(InputError, "scheduler", "nonsense://here"):
        interp.trace(tiny_model, TEXTS[:1], out=tmp_path / "s.zarr", steps=2, through=unreachable)
    with pytest.raises(ValueError, match="No"):  # an analysis here would wait for such a client for ever
        distributed.get_client()


@pytest.mark.filterwarnings("ignore:.*threads was 1")
def test_a_lost_cluster_is_an_error(tiny_model: interp.Model, tmp_path: Path) -> None:
    """The scheduler dies: what came is kept, what did not come is said, and the same call goes on."""
    from distributed import LocalCluster

    given: dict[str, Any] = {"out": tmp_path / "r.zarr", "steps": 8}
    texts = [f"a red cat {number}" for number in range(40)]  # many: the worker goes on until the loss reaches it
    given_to_dask: dict[str, Any] = {"threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with unittest.mock.patch.dict(os.environ), LocalCluster(n_workers=1, **given_to_dask) as local:
        through = interp.Workers(scheduler=local.scheduler_address, device="cpu")

        def lose(state: Any) -> None:
            if state.done == 2:
                local.scale(0)
                local.sync(local.scheduler.close)

        with refused(StoreError, "cluster", 40):
            interp.trace(tiny_model, texts, through=through, on_progress=lose, **given)
    assert 2 <= interp.open_run(tmp_path / "r.zarr").rows_done <= 40
    assert interp.trace(tiny_model, texts, **given).rows_done == 40


def test_a_worker_that_does_not_see_the_store_says_so(tiny_model: interp.Model, tmp_path: Path) -> None:
    from interp.runs.batches import Tracing
    from interp.tracing.prepare import prepare

    work = Tracing(prepare(tiny_model, TEXTS[:1], steps=2), tmp_path / "elsewhere.zarr", 1)
    sent = cluster.loads(cluster.dumps(work), '{"device": "cpu", "offload": "none"}')
    with refused(StoreError, tmp_path / "elsewhere.zarr", "folder"):
        list(sent.do([], lambda: False))
    other = interp.trace(tiny_model, TEXTS[:1], out=tmp_path / "other.zarr", steps=3)
    work.path = other.path
    with refused(interp.PlanError, "steps", 3, 2):
        list(work.do([], lambda: False))


def test_a_scheduler_swapped_in_memory_is_not_taken_for_the_stored_one(tiny_folder: Path) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    model = interp.load(tiny_folder)
    config = model.pipe.scheduler.config
    model.pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(config, stochastic_sampling=True)
    sent = cluster.dumps(model)  # type: ignore[arg-type]
    with refused(ModelError, "worker", "scheduler"):
        cluster.loads(sent, '{"device": "cpu", "offload": "none"}')


@pytest.mark.parametrize(
    ("device", "name", "cards", "expected"),
    [
        ("auto", "3", 2, "cuda:1"),
        ("cuda", "SLURMCluster-4", 4, "cuda:0"),
        ("cuda:2", "1", 4, "cuda:2"),
        ("auto", "0", 1, "auto"),
    ],
)
def test_one_worker_a_card(device: str, name: str, cards: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    assert json.loads(cluster._place({"device": device, "offload": "none"}, name))["device"] == expected


def test_a_model_changed_in_memory_is_not_taken_for_the_stored_one(tiny_folder: Path) -> None:
    model = interp.load(tiny_folder)
    with torch.no_grad():
        model.pipe.transformer.transformer_blocks[0].norm1.linear.bias.add_(1.0)
    sent = cluster.dumps(model)  # type: ignore[arg-type]
    with refused(ModelError, "worker", "weights"):
        cluster.loads(sent, '{"device": "cpu", "offload": "none"}')
