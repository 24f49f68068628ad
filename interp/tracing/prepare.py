"""Everything about a run that can be known, and refused, before the model runs."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from interp.errors import InputError, InterpWarning
from interp.guidance.combine import Combined, parse
from interp.guidance.method import UNCOND
from interp.guidance.rows import Guide
from interp.interventions import Intervention
from interp.interventions.controls import NormEdit
from interp.interventions.selection import Selection
from interp.models.families.pipeline import Layout, Schedule, schedule
from interp.models.identity import fingerprint, scheduler_settings
from interp.models.noise import is_velocity, last_level
from interp.models.quiet import quiet
from interp.plan import Plan, Record, at_least
from interp.prompts import check_prompts, read_prompts
from interp.tracing.model import Model, load


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything about a run that is known before the model runs."""

    model: Model
    plan: Plan
    layout: Layout
    schedule: Schedule
    interventions: tuple[Intervention, ...] = ()
    guidance: Combined | None = None

    def guide(self, *, sequential: bool = False) -> Guide | None:
        """What guides one call of the pipeline; a new one for every call. `None` without guidance."""
        if self.guidance is None:
            return None
        sigmas = [*(float(sigma) for sigma in self.schedule.sigmas), last_level(self.model.pipe.scheduler)]
        return Guide(
            self.model.anatomy,
            self.guidance,
            self.unconditional,
            lambda step: (sigmas[step], sigmas[step + 1]),
            velocity=is_velocity(self.layout.prediction),
            parts=len(self.layout.prediction),
            sequential=sequential,
        )

    @functools.cached_property
    def unconditional(self) -> Mapping[str, Any]:
        """The arguments of unconditional rows, where the guidance needs them."""
        if self.guidance is None or not needs_unconditional(self.guidance):
            return {}
        spec = self.model.loaded.spec
        assert spec.unconditional is not None
        with torch.no_grad(), quiet():
            return spec.unconditional(self.model.pipe, self.plan.negative_prompt, self.plan.settings)


def needs_unconditional(guidance: Combined) -> bool:
    """Whether any of its branches is the unconditional one."""
    return any(branch.name == UNCOND for method in guidance.methods for branch in method.branches())


def as_guidance(given: Any, model: Model) -> Combined | None:
    """Guidance as it is given: a method, a sum of them, or text such as "cfg:4+dg:1"."""
    if given is None:
        return None
    found = parse(given, model, load) if isinstance(given, str) else Combined.of(given)
    if needs_unconditional(found) and model.loaded.spec.unconditional is None:
        raise InputError(f"guidance: {model.name} has no unconditional branch, which {found.to_json()[0]['method']} needs")
    return found


def prepare(
    model: Model | str | Path,
    prompts: Sequence[str] | str | Path,
    *,
    steps: int | None = None,
    seed: int = 0,
    repeats: int = 1,
    height: int | None = None,
    width: int | None = None,
    guidance: Any = None,
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
    model.loaded.spec.check_texts(model.pipe, texts)
    record = recordable(record, model)
    guided = as_guidance(guidance, model)
    if negative_prompt and (guided is None or not needs_unconditional(guided)):
        warnings.warn(
            "negative_prompt has no effect without a guidance that uses it, such as cfg:4", InterpWarning, stacklevel=2
        )
    if guided is not None and any(isinstance(edit, NormEdit) for edit in interventions):
        raise InputError("interventions: edits of LayerNorms do not go with guidance; use one of them")
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
        guidance=None if guided is None else guided.to_json(),
        interventions=tuple(edit.to_json() for edit in interventions),
        record=record,
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
    if guided is not None:
        guided.check(model.anatomy, len(times.timesteps))
    model.warn_unknown_words(texts)
    model.warn_long_prompts(texts, chosen)
    return Prepared(model, plan, layout, times, tuple(interventions), guided)


def recordable(asked: Record | None, model: Model) -> Record:
    """What can be recorded of the model: where there are no gates, what was asked for without them, which is said."""
    record = asked or Record()
    if model.anatomy.gates or not record.gates:
        return record
    if asked is None:  # nothing is to be recorded
        return dataclasses.replace(record, gates=False)
    if record.modulation or record.branches:
        what = "modulation" if record.modulation else "branches"
        raise InputError(f"record.{what} goes with gates, and {model.name} has none: no alpha multiplies what its blocks add")
    if not (record.stats or record.hidden or record.prediction or record.recorders):
        raise InputError(
            f"record.gates: {model.name} has no gates: no alpha multiplies what its blocks add; record stats or hidden"
        )
    warnings.warn(
        f"{model.name} has no gates: no alpha multiplies what its blocks add. What its states are is traced, gates are not",
        InterpWarning,
        stacklevel=3,
    )
    return dataclasses.replace(record, gates=False)


def check_picture_size(model: Model, height: int, width: int, multiple: int) -> None:
    """Height and width must fit the model's patches and its table of positions."""
    for field, value in (("height", height), ("width", width)):
        if value % multiple:
            below = value - value % multiple
            raise InputError(
                f"{field} must be a multiple of {multiple} pixels for {model.name}; got {value} (try {max(below, multiple)})"
            )
    largest = getattr(model.pipe.transformer.config, "pos_embed_max_size", None)
    if largest is not None:
        most = largest * multiple
        for field, value in (("height", height), ("width", width)):
            if value > most:
                raise InputError(f"{field} must be at most {most} pixels for {model.name}; got {value}")
