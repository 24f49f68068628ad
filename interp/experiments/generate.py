"""Pictures, edited or not: `interp.generate(model, prompts, interventions=[...])`. No store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp.errors import TraceError
from interp.interventions import Intervention
from interp.plan import Record, at_least, groups
from interp.tracing.model import Model
from interp.tracing.prepare import prepare
from interp.tracing.trace import trace_group


def generate(
    model: Model | str | Path,
    prompts: Sequence[str] | str | Path,
    *,
    guidance: None = None,
    interventions: Sequence[Intervention] = (),
    steps: int | None = None,
    seed: int = 0,
    repeats: int = 1,
    height: int | None = None,
    width: int | None = None,
    settings: dict[str, Any] | None = None,
    batch_size: int = 1,
) -> xr.Dataset:
    """Draw prompts, with the same rows, seeds and defaults as `interp.trace`.

    image        (prompt, y, x, rgb) uint8
    latents      (prompt, ...) the last
    prompt_text, seed   coordinates of prompt

    The attributes hold the plan: model, weights, settings, edits. Rows of one batch equal those of a trace of that batch size
    bit for bit.
    """
    prepared = prepare(
        model,
        prompts,
        steps=steps,
        seed=seed,
        repeats=repeats,
        height=height,
        width=width,
        guidance=guidance,
        interventions=interventions,
        record=Record(stats=False, gates=False),
        settings=settings,
    )
    rows = prepared.plan.rows()
    drawn = []
    for batch in groups(rows, at_least("batch_size", batch_size, 1)):
        drawn += trace_group(
            prepared.model, prepared.plan, batch, prepared.schedule, prepared.layout, [], interventions=prepared.interventions
        )
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
