"""Check a run's arguments and compute its sizes before the model runs."""

from __future__ import annotations

import dataclasses
import functools
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from interp.base.errors import InputError, InterpWarning, TraceError
from interp.base.options import Sampling, as_settings, split
from interp.base.plan import Plan, Record
from interp.base.prompts import check_prompts, read_prompts
from interp.base.same_plan import difference
from interp.base.seeds import check_seeds
from interp.base.site_recorder import at_least
from interp.guidance.guide import Guide
from interp.guidance.method import UNCOND, Combined
from interp.guidance.text import parse
from interp.interventions import Intervention
from interp.interventions.controls import NormEdit
from interp.interventions.hooks import as_list
from interp.interventions.in_use import check_idle
from interp.interventions.selection import Selection
from interp.interventions.stored import from_json
from interp.models.families.pipeline import Layout
from interp.models.families.schedules import Schedule, schedule
from interp.models.noise import is_velocity, last_level
from interp.models.quiet import quiet
from interp.models.state import functions_state

if TYPE_CHECKING:
    from interp.tracing.model import Model

EXAMPLE = '[{"edit": "Zero", "channels": [29]}]'


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A checked run: its plan, layout, schedule and edits."""

    model: Model
    plan: Plan
    layout: Layout
    schedule: Schedule
    interventions: tuple[Intervention, ...] = ()
    guidance: Combined | None = None

    def check_unchanged(self) -> None:
        """Raise InputError if the model is not the one that was prepared: its owner has changed it since."""
        check_idle(self.model.pipe.transformer)
        now = self.model.identify()
        for field, value in now.items():
            before = getattr(self.plan, field)
            if field == "state":
                before = {name: part for name, part in before.items() if name != "recorders"}
            if before != value:
                place, its, was = difference(field, value, before)
                raise InputError(f"model: its {place} is {its}, and was {was} when this was prepared; prepare it again")

    def check_kept(self, store: str) -> None:
        """Raise TraceError if the weights are not those of the plan after a run: its rows may be of two models."""
        if self.model.weights() != self.plan.weights:
            raise TraceError(
                f"model: its weights changed while {store} was drawn (by a callback?), so its rows may be of two models; "
                "delete the store, and draw again without the change"
            )

    def together(self, size: int) -> int:
        """Rows of one call, where batches have `size`: one, where a row depends on the others of its call."""
        return 1 if self.model.anatomy.alone else size

    @property
    def apart(self) -> bool:
        """Whether the guidance needs calls of their own for its branches."""
        return self.model.anatomy.alone and self.guidance is not None and needs_unconditional(self.guidance)

    def guide(self, *, sequential: bool = False) -> Guide | None:
        """A new guide for one call of the pipeline; `None` without guidance."""
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
        """Transformer arguments of the unconditional rows; empty if the guidance does not need them."""
        if self.guidance is None or not needs_unconditional(self.guidance):
            return {}
        spec = self.model.loaded.spec
        assert spec.unconditional is not None
        with torch.no_grad(), quiet():
            return spec.unconditional(self.model.pipe, self.plan.negative_prompt, self.plan.settings)


def needs_unconditional(guidance: Combined) -> bool:
    """Whether any branch is the unconditional one."""
    return any(branch.name == UNCOND for method in guidance.methods for branch in method.branches())


def as_guidance(given: Any, model: Model) -> Combined | None:
    """Convert guidance: a method, a sum of methods, or text such as "cfg:4+dg:1"."""
    if given is None:
        return None
    found = parse(given, model, model.another) if isinstance(given, str) else Combined.of(given)
    if needs_unconditional(found) and model.loaded.spec.unconditional is None:
        raise InputError(f"guidance: {model.name} has no unconditional branch, which {found.to_json()[0]['method']} needs")
    return found


def prepare(
    model: Model,
    prompts: Sequence[str] | str | Path,
    sampling: Sampling | None = None,
    *,
    record: Record | None = None,
    **given: Any,
) -> Prepared:
    """Check every argument of a run and compute its sizes without running the model; `given` are fields of `Sampling`."""
    if sampling is None:
        (sampling,) = split(given, Sampling, of="prepare")
    if not isinstance(sampling.negative_prompt, str | None):
        raise InputError(f"negative_prompt must be a text; got {sampling.negative_prompt!r}")
    texts = read_prompts(prompts) if isinstance(prompts, str | Path) else check_prompts(prompts)
    if not isinstance(record, Record | None):
        raise InputError(f"record must be an interp.Record(...); got {record!r}")
    model.refresh()
    model.loaded.spec.check_texts(model.pipe, texts)
    record = recordable(record, model)
    guided, edits = as_guidance(sampling.guidance, model), as_edits(sampling.interventions, model)
    if sampling.negative_prompt and (guided is None or not needs_unconditional(guided)):
        warnings.warn(
            "negative_prompt has no effect without a guidance that uses it; add one such as cfg:4", InterpWarning, stacklevel=2
        )
    if guided is not None and any(isinstance(edit, NormEdit) for edit in edits):
        raise InputError("interventions: edits of LayerNorms cannot be combined with guidance; use one of them")
    plan = plan_of(model, texts, sampling, record, guided, edits)
    layout = model.loaded.spec.layout(model.pipe, plan.height, plan.width, plan.settings)
    check_picture_size(model, plan.height, plan.width, layout.pixel_multiple)
    times = schedule(model.pipe, model.loaded.spec.levels, plan.steps, layout.tokens(layout.generated), plan.settings)
    for edit in edits:
        if isinstance(edit, Selection):
            edit.check(model.anatomy, len(times.timesteps), layout.lengths)
    if guided is not None:
        guided.check(model.anatomy, len(times.timesteps))
    model.warn_unknown_words(texts)
    model.warn_long_prompts(texts, plan.settings)
    return Prepared(model, plan, layout, times, edits, guided)


def plan_of(
    model: Model,
    texts: Sequence[str],
    sampling: Sampling,
    record: Record,
    guided: Combined | None,
    edits: Sequence[Intervention],
) -> Plan:
    """The plan of a run, with the model's defaults for unset arguments."""
    given = {name: getattr(sampling, name) for name in ("height", "width")}
    identified = model.identify()
    recorders = functions_state(model.pipe, {recorder.name: recorder.function for recorder in record.recorders})
    seeds = check_seeds(sampling.seeds)
    if not isinstance(seeds, str) and sampling.repeats not in (1, len(seeds)):
        raise InputError(f"repeats: seeds lists {len(seeds)} seeds for each prompt; leave out repeats; got {sampling.repeats}")
    model.loaded.spec.check_pictures(model.name, settings := model.settings(as_settings(sampling.settings)))
    height, width = model.sizes(**{name: None if size is None else at_least(name, size, 1) for name, size in given.items()})
    return Plan(
        model=model.name,
        dtype=model.loaded.dtype,
        prompts=tuple(texts),
        steps=model.defaults.steps if sampling.steps is None else sampling.steps,
        seed=sampling.seed,
        repeats=sampling.repeats if isinstance(seeds, str) else len(seeds),
        seeds=seeds,
        height=height,
        width=width,
        negative_prompt=sampling.negative_prompt,
        settings=settings,
        guidance=None if guided is None else guided.to_json(),
        interventions=tuple(edit.to_json() for edit in edits),
        record=record,
        **{**identified, "state": {**identified["state"], **({"recorders": recorders} if recorders else {})}},
    )


def as_edits(given: Sequence[Intervention] | str | Path, model: Model) -> tuple[Intervention, ...]:
    """Convert edits: a sequence of edits, or the path of a JSON file with a list of them."""
    if not isinstance(given, str | Path):
        wrong = [edit for edit in as_list(given) if not (hasattr(edit, "touches") and hasattr(edit, "to_json"))]
        if wrong:
            raise InputError(f"interventions must be edits, such as interp.interventions.Zero(channels=[29]); got {wrong[0]!r}")
        return tuple(given)
    if not str(given):
        return ()
    try:
        listed = json.loads(Path(given).read_text(encoding="utf-8"))
        return tuple(from_json(edit, model=model) for edit in listed)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"interventions must be a JSON file with a list of edits, such as {EXAMPLE}; got {str(given)!r} ({error})"
        ) from None


def recordable(asked: Record | None, model: Model) -> Record:
    """The record without gates if the model has none, with a warning if the user requested them."""
    record = asked or Record()
    if model.anatomy.gates or not record.gates:
        return record
    if asked is None:  # the default record: no warning
        return dataclasses.replace(record, gates=False)
    if record.modulation or record.branches:
        what = "modulation" if record.modulation else "branches"
        raise InputError(
            f"record.{what} needs gates, and {model.name} has none: no alpha multiplies its branches; leave it out"
        )
    if not (record.stats or record.hidden or record.prediction or record.recorders):
        raise InputError(f"record.gates: {model.name} has no gates: no alpha multiplies its branches; record stats or hidden")
    warnings.warn(
        f"{model.name} has no gates: no alpha multiplies its branches. Its states are traced without gates",
        InterpWarning,
        stacklevel=3,
    )
    return dataclasses.replace(record, gates=False)


def check_picture_size(model: Model, height: int, width: int, multiple: int) -> None:
    """Check that height and width fit the model's patches and position table."""
    largest = getattr(model.pipe.transformer.config, "pos_embed_max_size", None)
    for field, value in (("height", height), ("width", width)):
        if value % multiple:
            below = value - value % multiple
            raise InputError(
                f"{field} must be a multiple of {multiple} pixels for {model.name}; got {value} (try {max(below, multiple)})"
            )
        if largest is not None and value > largest * multiple:
            raise InputError(f"{field} must be at most {largest * multiple} pixels for {model.name}; got {value}")
