"""`Question`: the definition of an analysis of one run."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from interp.analysis.table import Rows, Table

if TYPE_CHECKING:
    import xarray as xr

    from interp.store.traced_run import Run

Results = dict[str, "xr.Dataset"]
Draw = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Question:
    """An analysis of one run."""

    name: str
    about: str
    """What it measures; the help text of the command."""
    options: type[Any]
    compute: Callable[[Run, Any], Results]
    """Results by the names under which a store keeps them."""
    tables: Mapping[str, tuple[str, Table]]
    """(result's name, or a pattern such as NAME_*; table) by title; {NAME} is an option or an attribute of the result."""
    figures: Callable[[Run, Results, Any], Mapping[str, Draw]]
    papers: tuple[str, ...] = ()
    """Topics of the papers' own numbers (`interp.analysis.table`)."""

    def named(self, run: Run, asked: Any) -> Any:
        """The options with the name of the run's stream in place of a role."""
        if not hasattr(asked, "stream"):
            return asked
        from interp.analysis.sources import stream_of

        return dataclasses.replace(asked, stream=stream_of(run, asked.stream))

    def shown(self, results: Results, asked: Any) -> dict[str, tuple[xr.Dataset, Rows]]:
        """Every result that has a table, and its rows, by title."""
        return {
            title.format(**{**found.attrs, **vars(asked)}): (found, table.rows(found))
            for title, (pattern, table) in self.tables.items()
            for name, found in results.items()
            if fnmatch.fnmatchcase(name, pattern)
        }
