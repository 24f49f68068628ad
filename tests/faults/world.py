"""A world to break: a tiny model, its rows, what an undisturbed run gives, and traces in processes that can be killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from filelock import FileLock, Timeout

import interp
from interp.base.errors import InterpWarning
from interp.base.executor import Execution
from interp.interventions import hooks  # noqa: F401  (loaded before forking)
from interp.runs.run import execute
from interp.store.verification import forget, verify
from interp.tracing.prepare import prepare

PROMPTS = [f"a {color} {thing}" for color in ("red", "blue", "green") for thing in ("cat", "dog", "circle", "square")]
STEPS = 3
RECORD = interp.Record(hidden=interp.Select(blocks="1,3"))


class World:
    """Made once, before anything is forked: children have the model without loading it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.source = folder, model
        self.model = interp.load(model)
        self.prompts = folder / "prompts.txt"
        self.prompts.write_text("\n".join(PROMPTS))
        self.whole = folder / "whole.zarr"
        assert self.wait(self.tracing(self.whole)) == 0
        self.truth = arrays(self.whole)
        rows = {row.tobytes() for row in self.truth["stats/image/mean"]}
        assert len(rows) == len(PROMPTS), "rows must differ, or one in the place of another would not be seen"
        self.made = 0

    def store(self) -> Path:
        """A place for another store."""
        self.made += 1
        return self.folder / f"{self.made}" / "run.zarr"

    def command(self, out: Path, *more: str) -> list[str]:
        """The words of `interp trace`."""
        given = ["--steps", str(STEPS), "--record", "stats,gates,hidden", "--blocks", "1,3", "--batch-size", "2"]
        return ["trace", "--model", str(self.source), "--prompts", str(self.prompts), "--out", str(out), *given, *more]

    def trace(self, out: Path, **more: Any) -> interp.Run:
        """Trace in the process at hand."""
        return execute(prepare(self.model, PROMPTS, steps=STEPS, record=RECORD), out, Execution(batch_size=2), **more)

    def tracing(self, out: Path, **more: Any) -> int:
        """Trace in a process of its own; its number."""
        return self.fork(lambda: self.trace(out, **more))

    def fork(self, call: Callable[[], Any]) -> int:
        """Run something in a copy of this process; an error ends it with 1."""
        sys.stdout.flush()
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            torch.set_num_threads(1)
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                code = call() if isinstance(found := call, int) else (found() or 0)
                code = code if isinstance(code, int) else 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            if os.environ.get("FAULTS_DEBUG"):
                traceback.print_exc(file=sys.__stderr__)
        os._exit(code)

    def cli(self, words: list[str]) -> int:
        """The command line in a process of its own, for exit codes."""

        def run() -> int:
            from interp.cli import main

            sys.argv = ["interp", *words]
            main()
            return 0

        return self.fork(run)

    @staticmethod
    def wait(child: int) -> int:
        """A process's exit code; minus the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def repair(self, out: Path) -> None:
        """What `interp verify --repair` does."""
        forget(out, verify(out))
        self.trace(out)


def rows_done(out: Path) -> set[int]:
    """The rows that are marked done."""
    folder = out / "done" / "c"
    with contextlib.suppress(FileNotFoundError):
        return {int(name) for name in os.listdir(folder) if name.isdecimal()}
    return set()


def marks(out: Path) -> dict[int, int]:
    """When each done row was marked: a row that is traced again is marked again."""
    found = {}
    for row in rows_done(out):
        with contextlib.suppress(FileNotFoundError):
            found[row] = (out / "done" / "c" / str(row)).stat().st_mtime_ns
    return found


def at_a_random_moment(out: Path, child: int, draw: random.Random, *, more: int | None = None) -> bool:
    """Wait until some more rows are done and a moment longer; whether the process still runs."""
    wanted = len(rows_done(out)) + (draw.randrange(0, 4) if more is None else more)
    while len(rows_done(out)) < wanted:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        time.sleep(0.002)
    time.sleep(draw.uniform(0.0, 0.25))
    return not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def kill(child: int, number: int = signal.SIGKILL) -> None:
    """Send a signal; the process may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def is_locked(out: Path) -> bool:
    """Whether a process holds the lock of a store."""
    try:
        with FileLock(f"{out}.lock", timeout=0):
            return False
    except Timeout:
        return True


def arrays(out: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Every array of a store."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = zarr.open_group(str(out), mode="r")
        found = {name: node for name, node in root.members(max_depth=None) if isinstance(node, zarr.Array)}
        return {name: np.asarray(node[...]) for name, node in found.items()}


def differences(out: Path, truth: dict[str, np.ndarray[Any, Any]], tolerance: float) -> list[str]:
    """Where a finished store is not what an undisturbed run gives: bit for bit, or to a relative tolerance."""
    found = arrays(out)
    wrong = [f"{name} is {'missing' if name in truth else 'new'}" for name in truth.keys() ^ found.keys()]
    for name in truth.keys() & found.keys():
        one, other = found[name], truth[name]
        floating = one.dtype.kind == "f"
        same = one.shape == other.shape and (
            np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)
            if tolerance and floating
            else np.array_equal(one, other, equal_nan=floating)
        )
        if not same and not (tolerance and name == "outputs/image" and np.abs(one.astype(int) - other.astype(int)).max() <= 1):
            wrong.append(f"{name} differs")
    return wrong + [f"{fault.where}: {fault.reason}" for fault in verify(out)]


@contextlib.contextmanager
def unlocked() -> Iterator[None]:
    """Notes of changed threads and batches are not what is tried here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InterpWarning)
        yield
