"""Who does the work of a run or an experiment, and who hears of it: this process, or the workers of `interp.cluster`.

Work comes in units (a batch of rows, the arms of one row). A unit writes what it makes into the store itself and reports what
it did; whoever executes only counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Annotated, Any, Protocol

from typing_extensions import Doc

Stopped = Callable[[], bool]
Done = tuple[str, Any]
"""(who did it, what a unit reports)."""


class Work(Protocol):
    """Units that can be done in any order, by anyone who has the model and the store's folder."""

    def opened(self, stopped: Stopped) -> AbstractContextManager[Callable[[Any], Any]]:
        """What does a unit; it looks first what of it is done already."""


class Executor(Protocol):
    """Does units; a generator, so that leaving it early stops the work."""

    def __call__(self, work: Work, units: Sequence[Any], stopped: Stopped) -> Generator[Done, None, None]:
        """What was done, as it is done. After `stopped()` no further unit is begun."""

    def provenance(self) -> dict[str, Any]:
        """What of a store's provenance is not this process's."""

    def rates(self) -> dict[str, float]:
        """What each of several workers does a minute."""


class Here:
    """In the process at hand, one unit after the other."""

    def __call__(self, work: Work, units: Sequence[Any], stopped: Stopped) -> Generator[Done, None, None]:
        """What was done, as it is done."""
        with work.opened(stopped) as do:
            for unit in units:
                yield "", do(unit)
                if stopped():
                    return

    def provenance(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def rates(self) -> dict[str, float]:
        """Nothing."""
        return {}


HERE = Here()


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run or an experiment is; `on_progress` receives one after every step or unit."""

    done: int
    """Rows of a trace, cells of an experiment."""
    total: int
    made: int = 0
    """Those that this call made."""
    seconds: float = 0.0
    """Since this call began."""
    step: int = 0
    steps: int = 0
    """Sampling steps of one row."""
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Rows a minute of each of several workers."""


OnProgress = Callable[[Progress], None]


@dataclasses.dataclass(frozen=True)
class Execution:
    """How work is done: none of it changes what is measured, beyond rounding."""

    batch_size: Annotated[int, Doc("Rows, or an experiment's arms, in one call of the model.")] = 1
    through: Executor = HERE
    on_progress: OnProgress = lambda progress: None
    stopped: Stopped = lambda: False
    """Asked after every unit; if it is true, what is in flight is finished and a KeyboardInterrupt follows."""
