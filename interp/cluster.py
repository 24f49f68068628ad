"""Many workers: units of work over dask.distributed, here or on any cluster that shares the folder.

    interp.trace(model, prompts, out=..., through=interp.Workers(4))
    disrupt(model, prompts, out=...).run(through=interp.Workers(scheduler="tcp://HOST:8786"))

A worker loads the model once, looks what of a unit is done, does the rest and writes it itself. What comes back is row numbers,
and results are let go at once: dask would compute finished tasks again whose results were lost with their worker (dask#10654).
"""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import importlib.util
import io
import json
import logging
import os
import pickle
import re
import signal
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

import dask

from interp.errors import InputError, InterpError, InterpWarning, ModelError, StoreError, TraceError
from interp.executor import Done, Stopped, Work
from interp.models.identity import fingerprint, scheduler_settings
from interp.plan import at_least
from interp.tracing.model import Model, load


class Workers:
    """Processes of one thread each on this machine, one a card where there are cards; or the workers of a dask scheduler.

    The store equals one process's to 1e-5 relative. A worker that dies costs the unit it was at.

    workers.done      rows (cells, of an experiment) that each worker did
    workers.seconds   how long they had
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
            raise InputError(
                "device must be said with a scheduler (--device cuda or cpu): its workers may have what this machine has not"
            )
        self.scheduler, self.place = scheduler, {"device": device, "offload": offload}
        self.done: collections.Counter[str] = collections.Counter()
        self.seconds = 0.0

    def provenance(self) -> dict[str, Any]:
        """Where the numbers are made."""
        import torch

        device = str(self.place["device"])
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        threads = {"threads": 1} if chosen == "cpu" else {}
        return {"device": chosen, "offload": self.place["offload"], **threads}

    def __call__(self, work: Work, units: Sequence[Any], stopped: Stopped) -> Generator[Done, None, None]:
        """What workers did, as they do it; after a stop, what was in flight."""
        self.done.clear()
        if not units:
            return
        started, sent, answered = time.monotonic(), dumps(work), 0
        with _environment_kept(), _client(self.count, self.scheduler) as client:
            for name, outcome in _results(client, sent, self.place, units, stopped):
                answered += 1
                self.done[name] += len(outcome)
                self.seconds = time.monotonic() - started
                yield name, outcome
        if answered < len(units) and not stopped():
            raise StoreError(
                f"the cluster was lost: {len(units) - answered} of {len(units)} units of work were not answered; rows already "
                "done are kept, the same command goes on"
            )

    def rates(self) -> dict[str, float]:
        """Rows (cells) a minute of every worker."""
        return {name: 60 * count / max(self.seconds, 1e-9) for name, count in sorted(self.done.items())}


@contextlib.contextmanager
def _client(count: int | None, scheduler: str | None) -> Iterator[Any]:
    """Processes of one thread here, or a cluster that is there already; never dask's default, which analyses would wait for."""
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout="20s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(f"scheduler {scheduler!r} cannot be reached ({error}); such as tcp://HOST:8786") from None
        with client:
            if not client.scheduler_info()["workers"]:
                warnings.warn(
                    f"no worker has joined {scheduler} yet; the work waits for the first", InterpWarning, stacklevel=5
                )
            yield client
        return
    given = {"threads_per_worker": 1, "processes": True, "memory_limit": 0, "dashboard_address": None, "silence_logs": "ERROR"}
    # units are long: none is handed out before a worker is free for it, or the last ones wait for one that has two
    with (
        dask.config.set({"distributed.scheduler.worker-saturation": 1.0}),
        LocalCluster(n_workers=count, **given) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(_led())
        yield client


def _led() -> Any:
    """For workers here, those that replace dead ones too: what ends them is the client's to say and do."""
    from distributed import WorkerPlugin

    class Led(WorkerPlugin):  # type: ignore[misc]
        """Ignores SIGINT, which a terminal sends to all of them: the client lets them finish what they are at."""

        def setup(self, worker: Any) -> None:
            logging.getLogger("distributed.worker").addFilter(_of_a_lost_scheduler)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    return Led()


def _of_a_lost_scheduler(record: logging.LogRecord) -> bool:
    """False for a heartbeat that a closing scheduler no longer answers: `Workers` says which units came to nothing."""
    return not (record.exc_info and isinstance(record.exc_info[1], OSError) and "heartbeat" in record.getMessage())


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


def _results(client: Any, sent: bytes, place: dict[str, str], units: Sequence[Any], stopped: Stopped) -> Iterator[Done]:
    from distributed import KilledWorker, as_completed
    from distributed.comm import CommClosedError

    # the work goes with the tasks: a copy held by workers would be lost with them
    waiting = client.map(do, units, retries=2, sent=sent, place=place, pure=False)
    for future in as_completed(waiting, loop=client.loop):
        if future.cancelled():
            continue
        try:
            name, outcome = future.result()
        except KilledWorker as error:
            raise TraceError(f"a unit of work killed every worker that had it (out of memory?): {error}") from None
        except (CancelledError, CommClosedError):  # the connection went: what is not answered is counted and said
            continue
        if isinstance(outcome, InterpError):
            raise outcome
        yield name, outcome
        future.release()
        if stopped():
            running = {keys[0] for keys in client.processing().values() if keys}  # a worker has one thread
            client.cancel([other for other in waiting if other.status == "pending" and other.key not in running])


def do(unit: Any, sent: bytes, place: dict[str, str]) -> Done:
    """On a worker: do one unit. An error of ours is an answer: trying again would not help."""
    import torch
    from distributed import get_worker

    name = str(get_worker().name)
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    try:
        with _work(_Sent(sent), _place(place, name)).opened(lambda: False) as doing:
            return name, doing(unit)
    except InterpError as error:
        return name, error


def _place(place: dict[str, str], name: str) -> str:
    """As JSON; a card of the worker's number where there are several."""
    import torch

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = re.search(r"\d+$", name)
    if place["device"] in ("auto", "cuda") and cards > 1 and number is not None:
        place = {**place, "device": f"cuda:{int(number[0]) % cards}"}
    return json.dumps(place)


class _Sent(bytes):
    """What was sent, with a short hash."""

    def __hash__(self) -> int:
        return int.from_bytes(hashlib.sha256(self).digest()[:8], "big")


@functools.lru_cache(maxsize=1)
def _work(sent: _Sent, place: str) -> Work:
    """The work, made again once a worker."""
    return loads(sent, place)


def dumps(work: Work) -> bytes:
    """The work as bytes: models are sent as what `interp.load` makes them of, not as weights."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def persistent_id(self, value: Any) -> Any:
            if not isinstance(value, Model):
                return None
            if value.origin is None:
                raise InputError(
                    "workers load the model themselves, by its name or folder; a pipeline built by hand cannot be sent: "
                    "save it (pipe.save_pretrained) and give the folder, or use --shard"
                )
            return json.dumps([dict(value.origin), fingerprint(value.pipe), scheduler_settings(value.pipe)])

    held = io.BytesIO()
    Pickler(held).dump(work)
    return held.getvalue()


def loads(sent: bytes, place: str) -> Work:
    """The work again, with models loaded here."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, key: str) -> Model:
            return _model(key, place)

    made: Work = Unpickler(io.BytesIO(sent)).load()
    return made


@functools.lru_cache(maxsize=2)  # a guidance may have a model of its own
def _model(key: str, place: str) -> Model:
    origin, weights, scheduler = json.loads(key)
    model = load(origin.pop("name"), **origin, **json.loads(place))
    if fingerprint(model.pipe) != weights:
        raise ModelError(
            f"model {model.name!r}: this worker loads other weights than the run was begun with; a pipeline edited in memory "
            "(LoRA, changed weights) cannot be sent to workers: save it and give the folder"
        )
    if scheduler_settings(model.pipe) != scheduler:
        raise ModelError(
            f"model {model.name!r}: this worker loads another scheduler than the run was begun with; one changed in memory "
            "cannot be sent to workers: save the pipeline and give the folder"
        )
    return model
