"""Pictures, edited or not: `interp.generate(model, prompts, interventions=[...])`. No store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp.base.errors import TraceError
from interp.base.options import Sampling, split, takes
from interp.base.plan import Record, Row, at_least, groups
from interp.experiments.clean import sample
from interp.interventions.hooks import edited
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
    on_step: Callable[[int], None] = lambda step: None,
    **given: Any,
) -> xr.Dataset:
    """Draw prompts, with the same rows, seeds and defaults as `interp.trace`.

    `guidance` is a sum of `interp.guidance` methods, or text such as "cfg:4+dg:1". `sequential` runs its branches one after the
    other instead of as rows of one batch: slower, with less memory. `on_step` is told every step of every batch.

    image        (prompt, y, x, rgb) uint8
    latents      (prompt, ...) the last
    prompt_text, seed   coordinates of prompt

    The attributes hold the plan: model, weights, settings, edits. Rows of one batch equal those of a trace of that batch size
    bit for bit.
    """
    (sampling,) = split(given, Sampling, of="generate")
    prepared = prepare(as_model(model), prompts, sampling, record=Record(stats=False, gates=False))
    rows = prepared.plan.rows()
    drawn = []
    for batch in groups(rows, at_least("batch_size", batch_size, 1)):
        drawn += _one_by_one(prepared, batch, on_step) if sequential else trace_group(prepared, batch, [], on_step)
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


def _one_by_one(prepared: Prepared, batch: Sequence[Row], on_step: Callable[[int], None]) -> list[TracedRow]:
    """A call of the transformer for every branch: torch hooks alone, since a trace sees one call a step."""
    guide, edits = prepared.guide(sequential=True), prepared.interventions
    with contextlib.ExitStack() as hooks:
        hooks.enter_context(prepared.model.lock)
        if edits:
            hooks.enter_context(edited(prepared.model, edits))
        if guide is not None:
            hooks.enter_context(guide.guiding(prepared.model.pipe.transformer))
        images, latents = sample(prepared, batch, on_step)
    outputs = [{"outputs": {"image": image, "latents": last}} for image, last in zip(images, latents, strict=True)]
    return [TracedRow(row, arrays) for row, arrays in zip(batch, outputs, strict=True)]
