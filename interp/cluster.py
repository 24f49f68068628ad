"""The same rows over many workers: dask.distributed, here or on any cluster that shares the folder.

A task is the number of a batch; a worker loads the model once, looks whether the batch's rows are done, traces what is not, and
writes it itself. What comes back is row numbers, and results are let go at once: dask would compute finished tasks again whose
results were lost with their worker (dask#10654).
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from interp.batches import Batches
from interp.errors import InputError
from interp.plan import Record, at_least, groups
from interp.recorded import make_schema
from interp.run import OnProgress, Progress, conclude, give_up_early, open_or_create
from interp.store.create import writing_lock, zarr_quiet
from interp.store.failures import failures, forget_failure, note_failure
from interp.store.opened import Run
from interp.store.summary import write_summary
from interp.store.writer import Writer
from interp.tracing.model import load
from interp.tracing.prepare import Prepared, prepare

Done = tuple[str, list[tuple[int, str | None]]]
"""Which worker, and its rows with the reason of those that failed."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that a worker needs to make the run again: arguments of `interp.load` and of `interp.trace`."""

    model: str
    load: dict[str, Any]
    prompts: tuple[str, ...]
    arguments: dict[str, Any]

    def prepare(self, **changed: Any) -> Prepared:
        """Load the model and check the run."""
        return prepare(load(self.model, **{**self.load, **changed}), list(self.prompts), **self.arguments)

    def explicit(self) -> Recipe:
        """With the dtype that the workers' devices will choose: the client loads on the CPU, and plans must agree."""
        import torch

        if self.load.get("dtype") is not None:
            return self
        on_card = str(self.load.get("device", "auto")) != "cpu" and torch.cuda.is_available()
        return dataclasses.replace(self, load={**self.load, "dtype": "bfloat16" if on_card else "float32"})


def trace(
    recipe: Recipe,
    out: str | Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    batch_size: int = 1,
    resume: bool = True,
    retry_failed: bool = False,
    on_progress: OnProgress = lambda progress: None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Run, dict[str, int]]:
    """Trace into one store with `workers` processes here, or those of a dask `scheduler`; and how many rows each did.

    The store equals one process's to 1e-5 relative. A worker that dies costs the batch it was at.
    """
    if importlib.util.find_spec("distributed") is None:
        raise InputError("workers and schedulers need dask.distributed: pip install 'interp[distributed]'")
    recipe, path = recipe.explicit(), Path(out)
    prepared = recipe.prepare(device="cpu", offload="none")
    batches = groups(prepared.plan.rows(), at_least("batch_size", batch_size, 1))
    rows, started, traced = prepared.plan.rows(), time.monotonic(), 0
    by_worker: collections.Counter[str] = collections.Counter()
    with writing_lock(path), zarr_quiet():
        done = open_or_create(prepared, make_schema(prepared), path, batch_size, resume)
        failed, count, fresh = failures(path), sum(done), 0
        skipped = frozenset() if retry_failed else frozenset(failed)
        pending = [n for n, batch in enumerate(batches) if any(not done[r.index] and r.index not in skipped for r in batch)]
        with _environment_kept(), _client(workers, scheduler) as client:
            for worker, results in _results(client, recipe, path, batch_size, pending, skipped, stopped):
                for row, failure in results:
                    if failure is not None:
                        failed[row], fresh = failure, fresh + 1
                        note_failure(path, row, failure)
                        give_up_early(traced, fresh, failure)
                        continue
                    count, traced = count + 1, traced + 1
                    by_worker[worker] += 1
                    if failed.pop(row, None) is not None:
                        forget_failure(path, row)
                steps = prepared.plan.steps
                on_progress(Progress(count, len(rows), steps, steps, time.monotonic() - started, traced))
        if stopped():
            raise KeyboardInterrupt
        write_summary(path)
    return conclude(prepared, path, failed), dict(by_worker)


@contextlib.contextmanager
def _client(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """Processes of one thread here, or a cluster that is there already."""
    from distributed import Client, LocalCluster

    if (workers is None) == (scheduler is None):
        raise InputError("workers and scheduler: give one of them")
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout="20s")
        except (OSError, ValueError) as error:
            raise InputError(f"scheduler {scheduler!r} cannot be reached ({error}); such as tcp://HOST:8786") from None
        with client:
            yield client
        return
    count = at_least("workers", workers, 1)
    with _deaf_to_interrupts():  # Ctrl-C is for the client: it lets the workers finish what they are at
        local = LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=None, silence_logs="ERROR"
        )
    with local as cluster, Client(cluster) as client:
        yield client


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """Dask sets OMP_NUM_THREADS=1 for its workers in this process's environment; what is started later must not have it."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started inside ignore SIGINT, which a terminal sends to all of them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _results(
    client: Any,
    recipe: Recipe,
    path: Path,
    batch_size: int,
    numbers: Sequence[int],
    skipped: frozenset[int],
    stopped: Callable[[], bool],
) -> Iterator[Done]:
    """What workers did, as they do it; after a stop, what was in flight."""
    from distributed import as_completed

    shared = client.scatter(recipe, broadcast=True)
    given = {"recipe": shared, "path": str(path.resolve()), "together": batch_size, "skipped": skipped, "pure": False}
    waiting = client.map(trace_batch, numbers, retries=2, **given)
    arriving = as_completed(waiting)
    for future in arriving:
        if future.cancelled():
            continue
        yield future.result()
        future.release()
        if stopped():
            client.cancel([other for other in waiting if other.status == "pending" and not _running(client, other)])


def _running(client: Any, future: Any) -> bool:
    return any(future.key in keys for keys in client.processing().values())


def trace_batch(number: int, recipe: Recipe, path: str, together: int, skipped: frozenset[int]) -> Done:
    """On a worker: trace the rows of a batch that are not done."""
    from distributed import get_worker

    name, store = str(get_worker().name), Path(path)
    prepared = _prepared(_Keyed(recipe), name)
    batch = groups(prepared.plan.rows(), together)[number]
    rows = [row for row in batch if row.index not in skipped and not (store / "done" / "c" / str(row.index)).exists()]
    if not rows:
        return name, []
    with zarr_quiet(), Writer(store) as writer:
        found = Batches(prepared, make_schema(prepared), writer, lambda step: None).trace(batch, rows)
        for result in found:
            if result.failure is None:
                writer.row(result.row.index, result.arrays)
    return name, [(result.row.index, result.failure) for result in found]


class _Keyed:
    """A recipe as a key: one worker has one recipe at a time."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.text = recipe, repr(recipe)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and other.text == self.text


@functools.lru_cache(maxsize=1)
def _prepared(keyed: _Keyed, name: str) -> Prepared:
    """The model, loaded once a worker; on the card of its number where there are several."""
    import torch

    changed: dict[str, Any] = {}
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if keyed.recipe.load.get("device", "auto") == "auto" and cards > 1 and name.isdecimal():
        changed["device"] = f"cuda:{int(name) % cards}"
    if not cards:
        torch.set_num_threads(1)
    return keyed.recipe.prepare(**changed)


def recipe_of(model: str | Path, prompts: Sequence[str], *, load: dict[str, Any] | None = None, **arguments: Any) -> Recipe:
    """A recipe from what `interp.trace` takes; `load` are arguments of `interp.load`."""
    record = arguments.get("record")
    if isinstance(record, Record) and record.recorders:
        raise InputError("record: recorders of your own are functions; give workers a record without, or use --shard")
    return Recipe(str(model), dict(load or {}), tuple(prompts), arguments)
