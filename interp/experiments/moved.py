"""Edits that put a donor's massive channels into another run, and controls that destroy as much without its content.

massive    the donor's massive channels
control    as many ordinary channels of the donor
zero       the massive channels set to 0
shuffled   the donor's massive channels, their tokens in another order
energy     as large a change, along a random direction of the other channels
third      the massive channels of a third prompt's run with the same noise
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from interp.base.plan import Row
from interp.base.prompts import same_text
from interp.base.sites import Site
from interp.experiments.clean import Clean
from interp.interventions.controls import DisplaceAsFar
from interp.interventions.edits import Scale, Transport
from interp.interventions.selection import Values


@dataclasses.dataclass(frozen=True)
class Donors:
    """The runs that one pair's edits take values from."""

    own: Clean
    third: Callable[[], Clean]
    """Runs the third prompt, where an arm needs it."""
    massive: tuple[int, ...]
    control: tuple[int, ...]
    seed: int
    """Draws the order of tokens and the random direction."""

    def edit(
        self,
        name: str,
        steps: Sequence[int],
        blocks: Sequence[int],
        tokens: Sequence[int] | None,
        strength: float = 1.0,
        *,
        stream: str,
    ) -> Any:
        """The edit of one of `arguments.MOVED` at these steps and blocks."""
        channels = self.control if name == "control" else self.massive
        where: dict[str, Any] = {"channels": channels, "blocks": blocks, "steps": steps, "tokens": tokens, "stream": stream}
        if name == "zero":
            return Scale(1.0 - strength, **where)
        donor = self.third() if name == "third" else self.own
        sites = [Site(block, stream, "hidden") for block in blocks]
        values = donor.values(steps, sites, f"the run of {donor.row.text!r}, seed {donor.row.seed}", channels)
        if name == "energy":
            return DisplaceAsFar(values=values, strength=strength, seed=self.seed, **where)
        return Transport(self.shuffled(values) if name == "shuffled" else values, strength=strength, **where)

    def shuffled(self, values: Values) -> Values:
        """The values with their tokens in another order, the same at every step and block."""
        order = np.random.default_rng(self.seed).permutation(values.array.shape[2])
        return Values(values.array[:, :, order], values.coordinates, f"{values.source}, tokens shuffled")


def third_row(rows: Sequence[Row], row: Row, other: str) -> Row | None:
    """The row with the text of the next row whose prompt is neither its own nor `other`; `None` if there is none."""
    known = {same_text(row.text), same_text(other)}
    later = [*rows[row.index + 1 :], *rows[: row.index]]
    found = next((one for one in later if same_text(one.text) not in known), None)
    return None if found is None else dataclasses.replace(row, text=found.text)
