"""Who does the work of a run or an experiment: this process, or the workers of `interp.cluster`, by one rule.

Work comes in units (a batch of rows, the arms of one row). A unit writes what it makes into the store itself and says what it
did; whoever executes only counts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

Stopped = Callable[[], bool]
Done = tuple[str, Any]
"""(who did it, what a unit says of itself)."""


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
