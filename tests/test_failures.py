"""Prompts that fail, and runs that are stopped: what is done stays, what failed says why, nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import trace_command
from messages import names, refused

import interp
from interp.base.errors import InterpWarning, TraceError
from interp.store.failures import failures, forget_failure, note_failure

PROMPTS = ["a red cat", "two cat", "the green circle", "a photo of a dog", "two dog", "a blue square"]


class Outside:
    """Values in the environment: a pipeline that reads them stays the same pipeline."""

    def __getitem__(self, name: str) -> Any:
        value = os.environ[f"INTERP_TEST_{name}"]
        return int(value) if value.isdecimal() else value

    def __setitem__(self, name: str, value: Any) -> None:
        os.environ[f"INTERP_TEST_{name}"] = str(value)


@pytest.fixture
def failing(tiny_model: interp.Model, monkeypatch: pytest.MonkeyPatch) -> Outside:
    """The pipeline raises on every prompt with a word in it; "" lifts that."""
    state = Outside()
    state["word"], state["calls"] = "two", 0
    original = type(tiny_model.pipe).encode_prompt

    def encode(self: Any, prompt: Any, *arguments: Any, **more: Any) -> Any:
        texts = [prompt] if isinstance(prompt, str) else list(prompt or [])
        state["calls"] += 1
        if state["word"] and any(state["word"] in text for text in texts):
            raise ValueError("this prompt cannot be encoded")
        return original(self, prompt, *arguments, **more)

    monkeypatch.setattr(type(tiny_model.pipe), "encode_prompt", encode)
    return state


@pytest.mark.parametrize("batch_size", [3, pytest.param(1, marks=pytest.mark.full)])
def test_a_prompt_that_raises_costs_itself_alone(
    batch_size: int, tiny_model: interp.Model, failing: Outside, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"out": tmp_path / "r.zarr", "steps": 2, "batch_size": batch_size}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InterpWarning)  # of the batches that are traced one by one
        with refused(TraceError, "2 of 6 rows", "row 1", "'two cat'", "ValueError"):
            interp.trace(tiny_model, PROMPTS, **given)
    run = interp.open_run(tmp_path / "r.zarr")
    assert run.rows_done == 4
    assert sorted(run.failed) == [1, 4]
    assert "cannot be encoded" in run.failed[4]
    assert names(run.facts()["rows"], "2 failed", "row 1") == []

    calls = failing["calls"]
    with refused(TraceError, "2 of 6 rows"):
        interp.trace(tiny_model, PROMPTS, **given)
    assert failing["calls"] <= calls + 1, "what failed is not tried again by itself"

    failing["word"] = ""
    whole = interp.trace(tiny_model, PROMPTS, **given, retry_failed=True)
    assert whole.rows_done == 6
    assert whole.failed == {}
    alone = interp.trace(tiny_model, PROMPTS, out=tmp_path / "alone.zarr", steps=2, batch_size=batch_size)
    for name in ("mean", "mean_abs", "max_abs", "var"):
        assert np.allclose(whole.stats[name], alone.stats[name], rtol=1e-5, atol=1e-6, equal_nan=True)
    assert np.array_equal(whole.prompts, alone.prompts)


def test_a_run_of_which_nothing_succeeds_is_stopped(tiny_model: interp.Model, failing: Outside, tmp_path: Path) -> None:
    failing["word"] = "a"
    with refused(TraceError, "5 rows", "ValueError"):
        interp.trace(tiny_model, [f"a {n}" for n in range(20)], out=tmp_path / "r.zarr", steps=2)
    assert failing["calls"] < 20


EIGHT = [*PROMPTS, "the green circle", "a red cat"]


@pytest.fixture(scope="module")
def fitting(tiny_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> interp.Run:
    """Eight rows in batches of four that fit."""
    return interp.trace(tiny_model, EIGHT, out=tmp_path_factory.mktemp("fitting") / "r.zarr", steps=2, batch_size=4)


@pytest.mark.parametrize(
    ("fits", "expected"), [(3, [4, 2, 2, 2, 2]), pytest.param(1, [4, 2, 1, 1, 1, 1, 1, 1, 1, 1], marks=pytest.mark.long)]
)
def test_what_does_not_fit_in_memory_is_traced_in_halves(
    fits: int,
    expected: list[int],
    tiny_model: interp.Model,
    fitting: interp.Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def refuse(module: Any, arguments: Any, given: dict[str, Any]) -> None:
        rows = len(given.get("hidden_states", arguments[0] if arguments else None))
        if rows > fits:
            raise torch.OutOfMemoryError(f"{rows} rows are too many")

    original = type(tiny_model.pipe).encode_prompt

    def encode(self: Any, prompt: Any, *arguments: Any, **more: Any) -> Any:
        tried.append(1 if isinstance(prompt, str) else len(prompt))
        return original(self, prompt, *arguments, **more)

    handle = tiny_model.pipe.transformer.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        monkeypatch.setattr(type(tiny_model.pipe), "encode_prompt", encode)
        with pytest.warns(InterpWarning) as warnings_given:
            run = interp.trace(tiny_model, EIGHT, out=tmp_path / "r.zarr", steps=2, batch_size=4)
    finally:
        handle.remove()
    assert [size for size in tried if size] == expected
    messages = [str(warning.message) for warning in warnings_given]
    for words in [("batch of 4", 2), ("batch of 2", 1)][: 1 if fits == 3 else 2]:
        found = [text for text in messages if not names(text, *words)]
        assert len(found) == 1, "a warning when it happens, not for every batch"
    assert sum(not names(text, "memory") for text in messages) == (1 if fits == 3 else 2)
    for name in ("mean", "mean_abs", "max_abs", "var"):
        assert np.allclose(run.stats[name], fitting.stats[name], rtol=1e-5, atol=1e-6, equal_nan=True)


def test_a_row_that_does_not_fit_alone_ends_the_run(tiny_model: interp.Model, tmp_path: Path) -> None:
    def refuse(module: Any, arguments: Any) -> None:
        raise torch.OutOfMemoryError("none left")

    handle = tiny_model.pipe.transformer.register_forward_pre_hook(refuse)
    try:
        with refused(TraceError, "memory", "--offload model", "--height"):
            interp.trace(tiny_model, ["a red cat"], out=tmp_path / "r.zarr", steps=2)
    finally:
        handle.remove()


def test_a_row_that_is_done_has_not_failed(tiny_model: interp.Model, tmp_path: Path) -> None:
    """A process may die between marking a row done and forgetting that it failed."""
    run = interp.trace(tiny_model, PROMPTS[:2], out=tmp_path / "r.zarr", steps=2)
    note_failure(run.path, 1, "an older reason")
    assert interp.trace(tiny_model, PROMPTS[:2], out=run.path, steps=2).failed == {}


def test_failing_rows_do_not_stop_a_run_that_had_successes(tiny_model: interp.Model, failing: Outside, tmp_path: Path) -> None:
    texts = ["a red cat", *(f"two cat {number}" for number in range(7))]
    for retry in (False, True):
        with refused(TraceError, "7 of 8 rows"):
            interp.trace(tiny_model, texts, out=tmp_path / "r.zarr", steps=2, retry_failed=retry)
    assert len(interp.open_run(tmp_path / "r.zarr").failed) == 7


def test_a_batch_that_did_not_fit_is_let_go_before_its_halves(tiny_model: interp.Model, tmp_path: Path) -> None:
    import gc
    import weakref

    seen: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def refuse(module: Any, arguments: Any, given: dict[str, Any]) -> None:
        gc.collect()
        gc.freeze()  # later collections see only what was made since
        states = given["hidden_states"]
        alive.append(sum(ref() is not None and ref() is not states for ref in seen))
        seen.append(weakref.ref(states))
        if len(states) > 1:
            raise torch.OutOfMemoryError("too many")

    handle = tiny_model.pipe.transformer.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InterpWarning)
            interp.trace(tiny_model, PROMPTS[:4], out=tmp_path / "r.zarr", steps=1, batch_size=4)
    finally:
        gc.unfreeze()
        handle.remove()
    assert len(seen) >= 6
    assert max(alive[:3]) == 0, "attempts of 4, 2 and 1 rows: none holds an earlier one's states"


def test_failures_are_read_back_and_removed(tiny_run: interp.Run, tmp_path: Path) -> None:
    import shutil

    path = tmp_path / "r.zarr"
    shutil.copytree(tiny_run.path, path)
    note_failure(path, 3, "first reason")
    note_failure(path, 3, "second reason")
    note_failure(path, 11, "other")
    assert failures(path) == {3: "second reason", 11: "other"}
    (path / "failed" / "11" / "zarr.json").write_text("{")
    assert failures(path)[11] == "unknown: its record is damaged"
    forget_failure(path, 3)
    forget_failure(path, 3)
    assert list(failures(path)) == [11]
    assert interp.open_run(path).rows_done == tiny_run.rows_done, "a plain reader is not disturbed"


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Until the condition holds; the process must not end before, and the wait has a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


@pytest.mark.processes
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.full)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_stop_finishes_the_row_in_flight(number: int, tiny_folder: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "p.txt", tmp_path / "r.zarr"
    prompts.write_text("\n".join(f"a cat {n}" for n in range(400)))  # more than a machine draws before the signal arrives
    command = trace_command(tiny_folder, prompts, out, "--steps", "8")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: (out / "done" / "c" / "1").exists(), process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert names(errors, "row", "rows") == []
    assert "Traceback" not in errors
    before = interp.open_run(out).rows_done
    assert 2 <= before < 400
    done = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, "the lock is free"
    shards = len(list((out / "stats" / "image" / "mean_abs" / "c").iterdir()))
    assert shards == before, "every row written is whole, and marked done"
