"""What an analysis of one run is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from interp.analysis.table import Lines, Table

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
    """What it answers: the command's help."""
    options: type[Any]
    compute: Callable[[Run, Any], Results]
    """Results by the names under which a store keeps them."""
    tables: Callable[[Results, Any], Mapping[str, tuple[str, Table | Lines]]]
    """(result's name, table) by title."""
    figures: Callable[[Run, Results, Any], Mapping[str, Draw]]
    papers: tuple[str, ...] = ()
    """Topics of the papers' own numbers (`interp.analysis.published`)."""
