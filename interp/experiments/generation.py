"""Edited or guided pictures: `interp.generate`, which writes no store, and cells of experiments that compare guidances."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp.base.errors import TraceError
from interp.base.options import Sampling, split, takes
from interp.base.plan import Record, Row, groups
from interp.base.site_recorder import at_least
from interp.experiments.clean import Array, OnStep, guided_sample
from interp.experiments.draw import Outputs, Unit, measures
from interp.guidance.guide import place_of
from interp.tracing.group import trace_group
from interp.tracing.model import Model, as_model
from interp.tracing.prepare import Prepared, prepare
from interp.tracing.visitor import TracedRow


@takes(Sampling)
def generate(
    model: Model | str | Path,
    prompts: Sequence[str] | str | Path,
    *,
    batch_size: int = 1,
    sequential: bool = False,
    on_step: OnStep = lambda step: None,
    **given: Any,
) -> xr.Dataset:
    """Draw prompts, with the same samples, seeds and defaults as `interp.trace`.

    `guidance` is a sum of `interp.guidance` methods, or text such as "cfg:4+dg:1". `sequential` runs its branches one after the
    other instead of as rows of one batch: slower, with less memory. `on_step` is called after every step of every batch.

    image        (prompt, y, x, rgb) uint8
    latents      (prompt, ...) after the last step
    prompt_text, seed   coordinates of prompt

    The attributes hold the plan: model, weights, settings, edits. The samples of a batch equal those of a trace with that batch
    size bit for bit.
    """
    (sampling,) = split(given, Sampling, of="generate")
    prepared = prepare(as_model(model), prompts, sampling, record=Record(stats=False, gates=False))
    rows = prepared.plan.rows()
    drawn = []
    one_by_one = sequential or prepared.apart
    for batch in groups(rows, prepared.together(at_least("batch_size", batch_size, 1))):
        drawn += _one_by_one(prepared, batch, on_step) if one_by_one else trace_group(prepared, batch, [], on_step)
    failed = [row.failure for row in drawn if row.failure is not None]
    if failed:
        raise TraceError(f"{len(failed)} of {len(rows)} rows gave no picture; first: {failed[0]}")
    outputs = [row.arrays["outputs"] for row in drawn]
    return xr.Dataset(
        {
            "image": (("prompt", "y", "x", "rgb"), np.stack([output["image"] for output in outputs])),
            "latents": (("prompt", *prepared.layout.latents), np.stack([output["latents"] for output in outputs])),
        },
        {
            "prompt": np.arange(len(rows)),
            "prompt_text": ("prompt", np.array([row.text for row in rows], dtype=object)),
            "seed": ("prompt", [row.seed for row in rows]),
        },
        {"plan": prepared.plan.to_json()},
    )


def _one_by_one(prepared: Prepared, batch: Sequence[Row], on_step: OnStep) -> list[TracedRow]:
    """Call the transformer once per branch, with torch hooks only: a trace sees one call per step."""
    images, latents = guided_sample(prepared, batch, on_step, sequential=True)
    return [
        TracedRow(row, functools.partial(dict, outputs={"image": image, "latents": last}))
        for row, image, last in zip(batch, images, latents, strict=True)
    ]


@dataclasses.dataclass(frozen=True)
class BySettings:
    """Cells drawn as batches of samples, one guidance setting per batch."""

    prepared: tuple[Prepared, ...]
    """One per setting."""
    batch_size: int

    def units(self, pending: Array) -> list[Unit]:
        """The original batches, per setting, that have a pending cell."""
        batches = groups(self.prepared[0].plan.rows(), self.batch_size)
        return [
            (batch, (setting,))
            for setting in range(len(self.prepared))
            for batch in batches
            if any(pending[row.index, setting] for row in batch)
        ]

    def draw(self, unit: Unit, pending: Callable[[int, int], bool]) -> Iterator[tuple[int, Outputs]]:
        """Draw a whole batch and yield its pending rows."""
        batch, (setting,) = unit
        wanted = [place for place, row in enumerate(batch) if pending(row.index, setting)]
        if not wanted:
            return
        one = self.prepared[setting]
        images, latents = guided_sample(one, batch)
        for place in wanted:
            outputs = {"image": images[place], "latents": latents[place]}
            yield batch[place].index, (setting, outputs, measures(np.nan, np.nan, self._forwards(one)))

    def forwards(self, pending: Array) -> float:
        """Forward passes of the pending cells, with forked branches."""
        return float(sum(count * self._forwards(one) for count, one in zip(pending.sum(axis=0), self.prepared, strict=True)))

    def _forwards(self, one: Prepared) -> float:
        """Forward passes of a row under a setting: the conditional ones, whole branches, and the blocks after a fork."""
        steps, blocks = len(one.schedule.timesteps), len(one.model.anatomy.blocks)
        places = [place_of(branch) for step in range(steps) for branch in (one.guidance.branches(step) if one.guidance else ())]
        return steps + sum(1.0 if place is None else (blocks - place[1] - place[2]) / blocks for place in places)
