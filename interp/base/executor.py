"""Execution of a run or an experiment, in this process or on the workers of `interp.runs.cluster`, and its progress.

Work is split into units (a batch of rows, the arms of one row). A unit writes its results into the store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Protocol

from typing_extensions import Doc

Stopped = Callable[[], bool]
Done = tuple[str, list[Any]]
"""(name of the worker, finished parts of a unit, such as rows)."""


class Work(Protocol):
    """Units that run in any order, in any process that has the model and the store's folder."""

    def do(self, units: Iterable[Any], stopped: Stopped) -> Iterator[list[Any]]:
        """Do units, without the parts that are already done, and yield lists of the parts as they are finished."""


class Executor(Protocol):
    """Does units. It is a generator: closing it stops the work."""

    def __call__(self, work: Work, units: Sequence[Any], stopped: Stopped) -> Generator[Done, None, None]:
        """Yield finished units or parts of them. After `stopped()` no further unit starts."""

    def provenance(self) -> dict[str, Any]:
        """Fields of a store's provenance that differ from this process's."""
        return {}

    def rates(self) -> dict[str, float]:
        """Rows or cells per minute of each worker; empty without workers."""
        return {}


class Here(Executor):
    """Does units in this process, one after the other."""

    def __call__(self, work: Work, units: Sequence[Any], stopped: Stopped) -> Generator[Done, None, None]:
        """Yield finished parts of units."""

        def before_stop() -> Iterator[Any]:
            for unit in units:
                yield unit
                if stopped():
                    return

        for parts in work.do(before_stop(), stopped):
            yield "", parts


HERE = Here()


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a run or an experiment; `on_progress` receives one after every step or unit."""

    done: int
    """Rows of a trace, cells of an experiment."""
    total: int
    made: int = 0
    """Those done by this call."""
    seconds: float = 0.0
    """Since the start of this call."""
    step: int = 0
    steps: int = 0
    """Sampling steps of one row."""
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Rows per minute of each worker."""


OnProgress = Callable[[Progress], None]


@dataclasses.dataclass(frozen=True)
class Execution:
    """How work is executed: these options change results by rounding only."""

    batch_size: Annotated[int, Doc("Rows, or arms of an experiment, in one call of the model.")] = 1
    through: Executor = HERE
    on_progress: OnProgress = lambda progress: None
    stopped: Stopped = lambda: False
    """Called after every unit; if true, units in flight finish, then KeyboardInterrupt is raised."""
