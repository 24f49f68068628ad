"""What commands that can use workers share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.console import say
from interp.errors import InputError

if TYPE_CHECKING:
    from interp.executor import Executor

WorkerCount = Annotated[
    int | None, typer.Option("--workers", help="Use this many processes here, one a card (dask.distributed).")
]
Scheduler = Annotated[str | None, typer.Option(help="Use the workers of a dask scheduler, such as tcp://HOST:8786.")]


def spread(workers: int | None, scheduler: str | None, loading: dict[str, Any], model: str) -> Executor:
    """Who does the work. With workers, `loading` (arguments of `interp.load`) is changed: here the model stays on the CPU."""
    if workers is None and scheduler is None:
        from interp.executor import HERE

        return HERE
    from interp.cluster import Workers

    made = Workers(workers, scheduler=scheduler, device=loading["device"], offload=loading.get("offload", "none"))
    if loading.get("dtype") is None:  # what the workers would choose, not what this machine would
        from interp.models.load import default_dtype

        loading["dtype"] = default_dtype(model, made.provenance()["device"])
    loading.update(device="cpu", **({"offload": "none"} if "offload" in loading else {}))
    return made


def spread_experiment(
    workers: int | None, scheduler: str | None, loading: dict[str, Any], model: str, run: Path | None
) -> Executor:
    """Who draws an experiment, whose channels are chosen before: by a stored run, where the workers have cards."""
    made = spread(workers, scheduler, loading, model)
    if run is None and made.provenance().get("device", "cpu") != "cpu":
        raise InputError("workers on cards need --run, a traced store that the channels are chosen by (interp trace makes one)")
    return made


@contextlib.contextmanager
def saying_rates(executor: Executor) -> Iterator[None]:
    """At the end, however it comes, what each worker did."""
    try:
        yield
    finally:
        done: dict[str, int] = getattr(executor, "done", {})
        for name, rate in executor.rates().items():
            say(f"worker {name}: {done[name]} done, {rate:.1f} a minute")
