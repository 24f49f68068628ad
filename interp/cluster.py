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
import os
import pickle
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from interp.errors import InputError, ModelError
from interp.executor import Done, Stopped, Work
from interp.models.identity import fingerprint
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
        if not units:
            return
        started, sent = time.monotonic(), dumps(work)
        with _environment_kept(), _client(self.count, self.scheduler) as client:
            for name, outcome in _results(client, sent, self.place, units, stopped):
                self.done[name] += len(outcome)
                self.seconds = time.monotonic() - started
                yield name, outcome


@contextlib.contextmanager
def _client(count: int | None, scheduler: str | None) -> Iterator[Any]:
    """Processes of one thread here, or a cluster that is there already."""
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout="20s")
        except (OSError, ValueError) as error:
            raise InputError(f"scheduler {scheduler!r} cannot be reached ({error}); such as tcp://HOST:8786") from None
        with client:
            yield client
        return
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


def _results(client: Any, sent: bytes, place: dict[str, str], units: Sequence[Any], stopped: Stopped) -> Iterator[Done]:
    from distributed import as_completed

    shared = client.scatter(sent, broadcast=True)
    waiting = client.map(do, units, retries=2, sent=shared, place=place, pure=False)
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


def do(unit: Any, sent: bytes, place: dict[str, str]) -> Done:
    """On a worker: do one unit."""
    import torch
    from distributed import get_worker

    name = str(get_worker().name)
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    with _work(_Sent(sent), _place(place, name)).opened(lambda: False) as doing:
        outcome = doing(unit)
    return name, outcome


def _place(place: dict[str, str], name: str) -> str:
    """As JSON; a card of the worker's number where there are several."""
    import torch

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if place["device"] == "auto" and cards > 1 and name.isdecimal():
        place = {**place, "device": f"cuda:{int(name) % cards}"}
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
            return json.dumps([dict(value.origin), fingerprint(value.pipe)])

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


@functools.lru_cache(maxsize=4)
def _model(key: str, place: str) -> Model:
    origin, weights = json.loads(key)
    model = load(origin.pop("name"), **origin, **json.loads(place))
    if fingerprint(model.pipe) != weights:
        raise ModelError(
            f"model {model.name!r}: this worker loads other weights than the run was begun with; a pipeline edited in memory "
            "(LoRA, changed weights) cannot be sent to workers: save it and give the folder"
        )
    return model
