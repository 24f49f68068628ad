"""Cells of guided pictures: batches of rows under one guidance, which is of the whole call."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from interp.base.plan import groups
from interp.experiments.clean import Array, sample
from interp.experiments.draw import Outputs, Unit, measures
from interp.guidance.guide import place_of
from interp.interventions.hooks import edited
from interp.tracing.prepare import Prepared


@dataclasses.dataclass(frozen=True)
class BySettings:
    """Batches of rows under one setting: guidance is of the whole call."""

    prepared: tuple[Prepared, ...]
    """One for every setting."""
    batch_size: int

    def units(self, pending: Array) -> list[Unit]:
        """A batch under a setting each, in its original batch, whatever of it is drawn."""
        batches = groups(self.prepared[0].plan.rows(), self.batch_size)
        return [
            (batch, (setting,))
            for setting in range(len(self.prepared))
            for batch in batches
            if any(pending[row.index, setting] for row in batch)
        ]

    def draw(self, unit: Unit, pending: Callable[[int, int], bool]) -> Iterator[tuple[int, Outputs]]:
        """The pending rows of a batch."""
        batch, (setting,) = unit
        wanted = [place for place, row in enumerate(batch) if pending(row.index, setting)]
        if not wanted:
            return
        one = self.prepared[setting]
        guide = one.guide()
        with one.model.lock, contextlib.ExitStack() as hooks:
            if one.interventions:
                hooks.enter_context(edited(one.model, one.interventions))
            if guide is not None:
                hooks.enter_context(guide.guiding(one.model.pipe.transformer))
            images, latents = sample(one, batch)
        for place in wanted:
            outputs = {"image": images[place], "latents": latents[place]}
            yield batch[place].index, (setting, outputs, measures(np.nan, np.nan, self._forwards(one)))

    def forwards(self, pending: Array) -> float:
        """With forked branches."""
        return float(sum(count * self._forwards(one) for count, one in zip(pending.sum(axis=0), self.prepared, strict=True)))

    def _forwards(self, one: Prepared) -> float:
        """Of one row under a setting: the conditional ones, whole branches, and the blocks after a fork."""
        steps, blocks = len(one.schedule.timesteps), len(one.model.anatomy.blocks)
        places = [place_of(branch) for step in range(steps) for branch in (one.guidance.branches(step) if one.guidance else ())]
        return steps + sum(1.0 if place is None else (blocks - place[1] - place[2]) / blocks for place in places)
