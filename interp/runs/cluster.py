"""Workers: units of work over dask.distributed, on this machine or on any cluster that shares the folder.

    interp.trace(model, prompts, out=..., through=interp.Workers(4))
    disrupt(model, prompts, out=...).run(through=interp.Workers(scheduler="tcp://HOST:8786"))

A worker loads the model once, does and writes the parts of a unit that are not done, and returns row numbers only. Results are
released at once: otherwise dask repeats finished tasks when the worker that holds their results dies (dask#10654).
"""

from __future__ import annotations

import ast
import collections
import contextlib
import functools
import importlib.util
import io
import json
import logging
import os
import pickle
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dask

from interp.base.errors import InputError, InterpError, InterpWarning, ModelError, StoreError, TraceError
from interp.base.executor import Done, Stopped, Work
from interp.base.plan import as_json, at_least
from interp.tracing.model import Model, load


class Workers:
    """Processes of one thread each on this machine, one per GPU if it has GPUs; or the workers of a dask scheduler.

    The store equals that of one process to 1e-5 relative. If a worker dies, only its current unit is repeated.

    workers.done      rows of a trace or cells of an experiment done by each worker
    workers.seconds   seconds since the work started
    """

    def __init__(
        self, count: int | None = None, *, scheduler: str | None = None, device: str = "auto", offload: str = "none"
    ) -> None:
        if importlib.util.find_spec("distributed") is None:
            raise InputError("workers and schedulers need dask.distributed: pip install 'interp[distributed]'")
        if (count is None) == (scheduler is None):
            raise InputError("workers and scheduler: give one of them")
        self.count = None if count is None else at_least("workers", count, 1)
        if scheduler is not None and device == "auto":
            raise InputError("device must be given with a scheduler (--device cuda or cpu): its workers may have other devices")
        self.scheduler, self.place = scheduler, {"device": device, "offload": offload}
        self.done: collections.Counter[str] = collections.Counter()
        self.seconds = 0.0

    def provenance(self) -> dict[str, Any]:
        """Device, offloading and threads of the workers."""
        import torch

        device = str(self.place["device"])
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        threads = {"threads": 1} if chosen == "cpu" else {}
        return {"device": chosen, "offload": self.place["offload"], **threads}

    def __call__(self, work: Work, units: Sequence[Any], stopped: Stopped) -> Generator[Done, None, None]:
        """Yield each finished unit; after a stop, the units in flight."""
        self.done.clear()
        if not units:
            return
        if self.count is not None:
            check_main_guard()
        started, sent, answered = time.monotonic(), dumps(work), 0
        # restore the environment: dask sets OMP_NUM_THREADS=1 in this process, which later processes must not inherit
        with patch.dict(os.environ), _client(self.count, self.scheduler) as client:
            for name, outcome in _results(client, sent, self.place, units, stopped):
                answered += 1
                self.done[name] += len(outcome)
                self.seconds = time.monotonic() - started
                yield name, outcome
        if answered < len(units) and not stopped():
            raise StoreError(
                f"the cluster was lost: {len(units) - answered} of {len(units)} units of work did not return; finished rows "
                "are kept; run the same command again"
            )

    def rates(self) -> dict[str, float]:
        """Rows (cells) per minute of every worker."""
        return {name: 60 * count / max(self.seconds, 1e-9) for name, count in sorted(self.done.items())}


@contextlib.contextmanager
def _client(count: int | None, scheduler: str | None) -> Iterator[Any]:
    """Local processes of one thread, or an existing cluster; never dask's default client, which would block analyses."""
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout="20s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(f"scheduler {scheduler!r} cannot be reached ({error}); such as tcp://HOST:8786") from None
        with client:
            if not client.scheduler_info()["workers"]:
                warnings.warn(f"no worker has joined {scheduler} yet; the run waits for the first", InterpWarning, stacklevel=5)
            yield client
        return
    given = {"threads_per_worker": 1, "processes": True, "memory_limit": 0, "dashboard_address": None, "silence_logs": "ERROR"}
    # units are long: assign each to a free worker only, so that none waits behind another
    with (
        dask.config.set({"distributed.scheduler.worker-saturation": 1.0}),
        LocalCluster(n_workers=count, **given) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(_led())
        yield client


def _led() -> Any:
    """A plugin for local workers and their replacements, so that only the client stops them."""
    from distributed import WorkerPlugin

    class Led(WorkerPlugin):  # type: ignore[misc]
        """Ignores SIGINT, which a terminal sends to every process: the client lets workers finish their units."""

        def setup(self, worker: Any) -> None:
            logging.getLogger("distributed.worker").addFilter(_of_a_lost_scheduler)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    return Led()


def _of_a_lost_scheduler(record: logging.LogRecord) -> bool:
    """False for a heartbeat error of a closing scheduler: `Workers` reports the lost units."""
    return not (record.exc_info and isinstance(record.exc_info[1], OSError) and "heartbeat" in record.getMessage())


def _results(client: Any, sent: bytes, place: dict[str, str], units: Sequence[Any], stopped: Stopped) -> Iterator[Done]:
    from distributed import KilledWorker, as_completed
    from distributed.comm import CommClosedError

    # each task carries the work: a copy on a worker would be lost with it
    waiting = client.map(do, units, retries=2, sent=sent, place=place, pure=False)
    for future in as_completed(waiting, loop=client.loop):
        if future.cancelled():
            continue
        try:
            name, outcome = future.result()
        except KilledWorker as error:
            raise TraceError(f"a unit of work killed every worker that had it (out of memory?): {error}") from None
        except (CancelledError, CommClosedError):  # the connection was lost: the caller counts the missing units
            continue
        if isinstance(outcome, InterpError):
            raise outcome
        yield name, outcome
        future.release()
        if stopped():
            running = {keys[0] for keys in client.processing().values() if keys}  # a worker has one thread
            client.cancel([other for other in waiting if other.status == "pending" and other.key not in running])


def do(unit: Any, sent: bytes, place: dict[str, str]) -> tuple[str, list[Any] | InterpError]:
    """Do one unit on a worker. An InterpError is returned as the outcome: a retry would not help."""
    import torch
    from distributed import get_worker

    name = str(get_worker().name)
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    try:
        work = loads(sent, _place(place, name))
        return name, [part for parts in work.do([unit], lambda: False) for part in parts]
    except InterpError as error:
        return name, error


def _place(place: dict[str, str], name: str) -> str:
    """The device and offloading as JSON; with several GPUs, worker n takes GPU n modulo their number."""
    import torch

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = re.search(r"\d+$", name)
    if place["device"] in ("auto", "cuda") and cards > 1 and number is not None:
        place = {**place, "device": f"cuda:{int(number[0]) % cards}"}
    return json.dumps(place)


def dumps(work: Work) -> bytes:
    """Pickle the work: models as the arguments of `interp.load`, without weights."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def persistent_id(self, value: Any) -> Any:
            if not isinstance(value, Model):
                return None
            if value.origin is None:
                raise InputError(
                    "workers load the model by its name or folder; a pipeline passed to interp.wrap cannot be sent: "
                    "save it (pipe.save_pretrained) and give the folder, or use --shard"
                )
            return json.dumps([dict(value.origin), as_json(value.identify(), "model")])

    held = io.BytesIO()
    Pickler(held).dump(work)
    return held.getvalue()


def check_main_guard() -> None:
    """Refuse a script that every worker process would run again when it imports it."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or main.__spec__ is not None or not Path(file).is_file():
        return  # a notebook, `python -c`, or `python -m`, which processes do not run again
    names = {node.id for node in ast.walk(ast.parse(Path(file).read_bytes())) if isinstance(node, ast.Name)}
    if "__name__" not in names:
        raise InputError(
            f"workers: each of them imports {Path(file).name} and would run it again; put its work under "
            "`if __name__ == '__main__':`"
        )


def loads(sent: bytes, place: str) -> Work:
    """Unpickle the work and load its models on this worker, once per worker."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, key: str) -> Model:
            return _model(key, place)

    made: Work = Unpickler(io.BytesIO(sent)).load()
    return made


@functools.lru_cache(maxsize=2)  # a guidance may have its own model
def _model(key: str, place: str) -> Model:
    origin, identified = json.loads(key)
    model = load(origin.pop("name"), **origin, **json.loads(place))
    for part in (name for name, value in model.identify().items() if as_json(value, name) != identified[name]):
        raise ModelError(
            f"model {model.name!r}: this worker loads a pipeline with other {part} than the run started with; one edited in "
            "memory (LoRA, changed weights or scheduler) cannot be sent to workers: save it and give the folder"
        )
    return model
