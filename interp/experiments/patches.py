"""Cells of a patch grid: what each replaces, by the values of a clean run."""

from __future__ import annotations

import dataclasses
from typing import Any

from interp.base.plan import Row
from interp.base.sites import Site
from interp.experiments.clean import Clean, clean_run
from interp.experiments.draw import Arm, EditsOf
from interp.interventions.conditioning import ReplaceLater
from interp.interventions.edits import Replace
from interp.tracing.prepare import Prepared


@dataclasses.dataclass(frozen=True)
class Cell:
    """Where one arm patches."""

    what: str
    block: int
    steps: tuple[int, ...]
    tokens: tuple[int, ...] | None
    column: str
    sites: tuple[Site, ...]
    """Those that it replaces."""
    channels: tuple[int, ...] | None
    """`None` for all."""

    def arm(self) -> Arm:
        """The arm, its edits being made row by row."""
        said = {
            "replaced": [str(site) for site in self.sites],
            "steps": list(self.steps),
            "tokens": None if self.tokens is None else list(self.tokens),
            "channels": None if self.channels is None else list(self.channels),
        }
        place = min(self.steps), self.block, int(self.what != "alpha")
        labels = {"what": self.what, "block": self.block, "column": self.column}
        return Arm(f"{self.what} {self.block} {self.column}", (), labels, said, place)

    def edits(self, donor: Clean) -> list[Any]:
        """What it does, given the clean run."""
        found: list[Any] = [self._replace(site, donor) for site in self.sites]
        if self.what == "everything":
            source = f"the clean run of {donor.row.text!r}"
            found.append(ReplaceLater(self.block, donor.conditioning, source, self.steps))
        return found

    def _replace(self, site: Site, donor: Clean) -> Any:
        source = f"the clean run of {donor.row.text!r}, seed {donor.row.seed}"
        values = donor.values(self.steps, site, source, self.channels)
        at = "hidden" if site.gate is None else f"{site.kind}.{site.gate}"
        where: dict[str, Any] = {"blocks": [self.block], "steps": self.steps, "stream": site.stream, "at": at}
        tokens = self.tokens if site.kind == "hidden" else None
        return Replace(values, channels=self.channels, tokens=tokens, **where)


@dataclasses.dataclass(frozen=True)
class Patches:
    """All cells, and where their values come from."""

    clean: Prepared
    cells: tuple[Cell, ...]

    def keep(self) -> set[tuple[int, Site]]:
        """The clean run's states that cells need."""
        return {(step, site) for cell in self.cells for site in cell.sites for step in cell.steps}

    def bind(self, row: Row, corrupted: Clean) -> EditsOf:
        """The edits of a pair."""
        entering = any(cell.what == "everything" for cell in self.cells)
        donor = clean_run(self.clean, self.clean.plan.rows()[row.index], self.keep(), keep_conditioning=entering)
        cells = {cell.arm().name: cell for cell in self.cells}
        return lambda arm: donor if arm.name == "clean" else () if arm.name == "corrupted" else cells[arm.name].edits(donor)

    def held(self) -> float:
        """Bytes of the clean run's states that are in memory while a pair is drawn."""
        anatomy, size = self.clean.model.anatomy, 0
        for _, site in self.keep():
            tokens = self.clean.layout.tokens(site.stream) if site.kind == "hidden" else 1
            size += tokens * anatomy.channels * self.clean.model.pipe.transformer.dtype.itemsize
        return float(size)
