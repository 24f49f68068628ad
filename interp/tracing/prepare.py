"""Everything about a run that can be known, and refused, before the model runs."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp.errors import InputError, InterpWarning
from interp.interventions import Intervention
from interp.interventions.selection import Selection
from interp.models.families.pipeline import Layout, Schedule, schedule
from interp.models.identity import fingerprint, scheduler_settings
from interp.plan import Plan, Record, at_least
from interp.prompts import check_prompts, read_prompts
from interp.tracing.model import Model, load
from interp.tracing.trace import check_picture_size


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything about a run that is known before the model runs."""

    model: Model
    plan: Plan
    layout: Layout
    schedule: Schedule
    interventions: tuple[Intervention, ...] = ()


def prepare(
    model: Model | str | Path,
    prompts: Sequence[str] | str | Path,
    *,
    steps: int | None = None,
    seed: int = 0,
    repeats: int = 1,
    height: int | None = None,
    width: int | None = None,
    guidance: None = None,
    negative_prompt: str = "",
    interventions: Sequence[Intervention] = (),
    record: Record | None = None,
    settings: dict[str, Any] | None = None,
) -> Prepared:
    """Check every argument of a run and work out its sizes, without running the model."""
    texts = read_prompts(prompts) if isinstance(prompts, str | Path) else check_prompts(prompts)
    if not isinstance(record, Record | None):
        raise InputError(f"record must be an interp.Record(...); got {record!r}")
    model = model if isinstance(model, Model) else load(model)
    model.loaded.spec.prompts(model.pipe, texts)  # a class-conditional model knows what is no class
    if guidance is not None:
        raise InputError(f"guidance must be None while tracing (guided traces come with interp.guidance); got {guidance!r}")
    if negative_prompt:
        warnings.warn("negative_prompt has no effect while guidance is off; it is only stored", InterpWarning, stacklevel=2)
    height, width = model.sizes(
        None if height is None else at_least("height", height, 1), None if width is None else at_least("width", width, 1)
    )
    chosen = model.settings(settings)
    plan = Plan(
        model=model.name,
        dtype=model.loaded.dtype,
        prompts=tuple(texts),
        steps=model.defaults.steps if steps is None else steps,
        seed=seed,
        repeats=repeats,
        height=height,
        width=width,
        negative_prompt=negative_prompt,
        settings=chosen,
        interventions=tuple(edit.to_json() for edit in interventions),
        record=record or Record(),
        scheduler=scheduler_settings(model.pipe),
        weights=fingerprint(model.pipe),
    )
    layout = model.loaded.spec.layout(model.pipe, height, width, chosen)
    check_picture_size(model, height, width, layout.pixel_multiple)
    times = schedule(model.pipe, model.loaded.spec, plan.steps, layout)
    for edit in interventions:
        if isinstance(edit, Selection):
            tokens = {stream: layout.tokens(stream) for stream in model.anatomy.streams}
            edit.check(model.anatomy.streams, len(model.anatomy.blocks), model.anatomy.channels, len(times.timesteps), tokens)
    model.warn_unknown_words(texts)
    model.warn_long_prompts(texts, chosen)
    return Prepared(model, plan, layout, times, tuple(interventions))
