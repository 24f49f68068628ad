"""Shared by the commands that can use workers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp.base.errors import InputError
from interp.cli.console import say

if TYPE_CHECKING:
    from interp.base.executor import Executor
    from interp.base.options import Loading


@dataclasses.dataclass(frozen=True)
class Spread:
    """The workers to spread the work over."""

    workers: Annotated[int | None, Doc("Number of worker processes on this machine, one per GPU (dask.distributed).")] = None
    scheduler: Annotated[str | None, Doc("Use the workers of a dask scheduler, such as tcp://HOST:8786.")] = None

    def __bool__(self) -> bool:
        """Whether workers are used."""
        return self.workers is not None or self.scheduler is not None


def spread_work(spread: Spread, loading: Loading) -> tuple[Executor, Loading]:
    """The executor, and the loading options for this process: with workers, its model stays on the CPU."""
    if not spread:
        from interp.base.executor import HERE

        return HERE, loading
    from interp.models.load import default_dtype
    from interp.runs.cluster import Workers

    made = Workers(spread.workers, scheduler=spread.scheduler, device=loading.device, offload=loading.offload)
    # the workers' default dtype, not this machine's
    dtype = loading.dtype if loading.dtype is not None else default_dtype(loading.model, made.provenance()["device"])
    return made, dataclasses.replace(loading, dtype=dtype, device="cpu", offload="none")


def spread_experiment(spread: Spread, loading: Loading, run: Any) -> tuple[Executor, Loading]:
    """The executor of an experiment. Its channels must come from a stored run where the workers have GPUs."""
    made, here = spread_work(spread, loading)
    if run is None and made.provenance().get("device", "cpu") != "cpu":
        raise InputError("workers with GPUs need --run, a traced store to choose the channels from (interp trace makes one)")
    return made, here


@contextlib.contextmanager
def saying_rates(executor: Executor) -> Iterator[None]:
    """Print each worker's rows and rate at the end, also after an error."""
    try:
        yield
    finally:
        done: dict[str, int] = getattr(executor, "done", {})
        for name, rate in executor.rates().items():
            say(f"worker {name}: {done[name]} done, {rate:.1f} a minute")
