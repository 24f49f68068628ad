"""A table asked of a model: prepared with what it costs, drawn (a killed one goes on), then scored."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import paired, segmentation, study
from interp.errors import InputError
from interp.evaluation import presets, published
from interp.evaluation.evaluate import MARGIN, OnSetting, compare, score
from interp.evaluation.gallery import of_experiment
from interp.evaluation.prompt_sets import PromptSet
from interp.evaluation.scorers import Scorer
from interp.executor import HERE, Executor, Stopped
from interp.experiments import collapse, disrupt
from interp.experiments import sweep as sweeps
from interp.experiments.draw import BATCH_SIZE, OnProgress, Progress
from interp.plan import Record
from interp.run import execute
from interp.sites import Select
from interp.store.answers import read_answers
from interp.store.experiment import Experiment
from interp.store.opened import Run
from interp.store.places import located
from interp.store.results import write_result
from interp.store.schema import Array
from interp.store.studies import Study, study_file, write_study
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

Made = Experiment | Run
PAIRS = 100  # of a study, as in App. I
K = 12  # channels of a segmentation, where the model has so many: what followers of Few Channels use


@dataclasses.dataclass(frozen=True)
class Tracing:
    """The traces of a segmentation: image tokens after the last step, in every block."""

    prepared: Prepared
    out: Path

    @property
    def cost(self) -> dict[str, float]:
        """Pictures, and forwards of one row."""
        rows = len(self.prepared.plan.rows())
        return {"pictures": float(rows), "forwards": float(rows * self.prepared.plan.steps)}

    def run(
        self,
        *,
        batch_size: int = BATCH_SIZE,
        through: Executor = HERE,
        on_progress: OnProgress = lambda progress: None,
        stopped: Stopped = lambda: False,
    ) -> Run:
        """Trace what is missing."""

        def told(state: Any) -> None:
            on_progress(Progress(state.rows_done, state.rows_total, state.traced, state.seconds))

        given: dict[str, Any] = {"through": through, "stopped": stopped, "batch_size": batch_size}
        return execute(self.prepared, self.out, on_progress=told, **given)


@dataclasses.dataclass(frozen=True)
class Task:
    """A recipe for one model, or settings of the user's own, ready to be drawn and scored."""

    recipe: presets.Recipe | None
    prompts: PromptSet
    draws: Any
    """A `Sweep`, `Disruption`, `Collapse` or `Tracing`."""
    texts: tuple[str, ...]
    """Of every row."""
    arms: tuple[str, ...]
    names: Mapping[str, str]
    """Arm -> the recipe's name of its setting."""

    def baseline(self, given: str | None) -> str | None:
        """The arm of that name, or of the recipe's; an error before anything is drawn."""
        by_name: dict[str, str] = {}
        for arm, name in self.names.items():
            by_name.setdefault(name, arm)
        if given is None or given in self.arms:
            return given
        if given not in by_name:
            known = ", ".join(dict.fromkeys([*by_name, *self.arms]))
            raise InputError(f"baseline must be one of {known}; got {given!r}")
        return by_name[given]

    @property
    def rows(self) -> int:
        """Prompts x seeds."""
        return len(self.texts)

    @property
    def cost(self) -> Mapping[str, float]:
        """Pictures, and forwards of one row."""
        cost: Mapping[str, float] = self.draws.cost
        return cost

    def run(self, **given: Any) -> Made:
        """Draw what is missing; `given` are batch_size, through, on_progress, stopped."""
        made: Made = self.draws.run(**given)
        return made


def plan(
    what: str | Sequence[str],
    model: Model,
    prompts: PromptSet,
    out: str | Path,
    *,
    channels: Sequence[int] | None = None,
    block: int | None = None,
    batch_size: int = BATCH_SIZE,
    **arguments: Any,
) -> Task:
    """Prepare a preset by name, or a list of guidances (first the baseline); `arguments` are those of `interp.trace`.

    `channels` and `block` are Detail Guidance's, in place of the model's own preset: any model has a table so.
    """
    one = presets.recipe(what) if isinstance(what, str) else None
    texts, path = list(prompts.texts), located(out)
    unedited = one is None or one.kind in ("collapse", "segmentation")
    if unedited and (channels is not None or block is not None):
        raise InputError("channels and block are for presets of Detail Guidance and dg-fig-5b")
    if one is None:
        made = sweeps.sweep(model, texts, list(what), out=path, **arguments)
        return Task(None, prompts, made, _texts(made.prepared[0]), made.settings, {})
    if unedited:
        return _other(one, model, prompts, path, batch_size, arguments)
    blocks = len(model.anatomy.blocks)
    preset = presets.guidance_of(model.name, blocks, f"preset {one.name}", channels=channels, block=block)
    if one.kind == "disruption":
        given: dict[str, Any] = {"channels": list(preset.channels), "blocks": [preset.block], "batch_size": batch_size}
        return _armed(one, prompts, disrupt.disrupt(model, texts, out=path, **given, **arguments))
    settings = presets.settings(one, preset, blocks)
    names = {text: name for name, guidance in settings.items() for text, _ in sweeps.expand(guidance)}
    made = sweeps.sweep(model, texts, list(settings.values()), out=path, **arguments)
    return Task(one, prompts, made, _texts(made.prepared[0]), made.settings, names)


def _texts(prepared: Prepared) -> tuple[str, ...]:
    return tuple(row.text for row in prepared.plan.rows())


def _other(
    one: presets.Recipe, model: Model, prompts: PromptSet, path: Path, batch_size: int, arguments: Mapping[str, Any]
) -> Task:
    """Recipes that rank every channel of every block: nothing is Detail Guidance's."""
    texts = list(prompts.texts)
    if one.kind == "segmentation":
        record = Record(stats=True, gates=False, hidden=Select(steps=(-1,)))
        traced = Tracing(prepare(model, texts, record=record, **arguments), path)
        return Task(one, prompts, traced, _texts(traced.prepared), (one.name,), {})
    return _armed(one, prompts, collapse.collapse(model, texts, out=path, batch_size=batch_size, **arguments))


def _armed(one: presets.Recipe, prompts: PromptSet, made: Any) -> Task:
    """A task whose arms an experiment has made."""
    names = {arm.name: str(arm.labels["kind"]) for arm in made.arms}
    return Task(one, prompts, made, _texts(made.prepared), tuple(arm.name for arm in made.arms), names)


def results(
    task: Task,
    made: Made,
    scorers: Sequence[Scorer],
    *,
    baseline: str | None = None,
    margin: float = MARGIN,
    masks: Array | None = None,
    on_setting: OnSetting = lambda done, total: None,
) -> dict[str, xr.Dataset]:
    """Score what is drawn: results by name, kept in the store. `masks` are a segmentation's, (planned row, y, x) boolean."""
    found: dict[str, xr.Dataset] = {}
    if isinstance(made, Run):
        found["segmentation_score"] = _segmented(made, masks)
    else:
        scored = score(of_experiment(made), scorers, on_setting)
        settings = list(scored.gallery.settings)
        comparisons = task.recipe.comparisons if task.recipe is not None else ()
        unasked = {name for one in comparisons if not one.asked for name in one.settings}
        asked = [number for number, arm in enumerate(settings) if task.names.get(arm) not in unasked]
        found["evaluation"] = compare(scored.part(settings=asked), baseline=baseline, margin=margin)
        if "collapse" in made.results:
            found["collapse"] = made.result("collapse")
        for one in comparisons:
            numbers = [number for name in one.settings for number, arm in enumerate(settings) if task.names[arm] == name]
            part = scored.part(settings=numbers, asked=one.asked)
            found[f"evaluation_{one.name}"] = compare(part, margin=margin)
        if task.recipe is not None and task.recipe.styles:
            styles = [task.prompts.style_of(text) for text in scored.gallery.prompts]
            for style in sorted({style for style in styles if style is not None}):
                rows = np.flatnonzero([own == style for own in styles]).tolist()
                found[f"evaluation_{plain_name(style)}"] = compare(scored.part(rows=rows), baseline=baseline, margin=margin)
    compared = {name: table for name, table in found.items() if "p_holm" in table}
    found |= paired.correct_together(compared)
    said = {"preset": task.recipe.name if task.recipe is not None else "", **task.prompts.facts()}
    if task.recipe is not None:
        said |= {"table": task.recipe.table, "paper_prompts": task.recipe.prompts}
    named = {name: _named(result.assign_attrs(said), task) for name, result in found.items()}
    for name, result in named.items():
        write_result(made.path, name.replace("-", "_"), result)
    if isinstance(made, Experiment) and task.recipe is not None and task.recipe.kind == "study":
        named |= _study(made)
    return named


def plain_name(style: str) -> str:
    """A style as part of a result's name: PartiPrompts has "Food & Beverage"."""
    return re.sub(r"\W+", "_", style).strip("_")


def _named(found: xr.Dataset, task: Task) -> xr.Dataset:
    """With the recipe's names of the settings and, beside each, the paper's own numbers."""
    if task.recipe is None or "setting" not in found.dims:
        return found
    names = [task.names[str(arm)] for arm in found["setting"].to_numpy()]
    numbers = published.reported(task.recipe.name)
    said = [published.of_setting(numbers, name) for name in names]
    return found.assign_coords(name=("setting", np.array(names, object)), paper=("setting", np.array(said, object)))


def _segmented(run: Run, masks: Array | None) -> xr.Dataset:
    if masks is None:
        raise InputError("masks must be given for a segmentation, (row, y, x) boolean: the subject's pixels")
    done = run.images["prompt"].to_numpy()
    return segmentation.score(run, masks[done], k=min(K, run.stats.sizes["channel"] // 4))


def _one_of_each(made: Experiment) -> list[int]:
    """Rows that are drawn, the first seed of every prompt before the second of any."""
    texts, seen = made.axes["prompt_text"].to_numpy(), dict[str, int]()
    turns = []
    for row in np.flatnonzero(made.done.all(axis=1)):
        seen[texts[row]] = seen.get(texts[row], 0) + 1
        turns.append((seen[texts[row]], int(row)))
    return [row for _, row in sorted(turns)]


def _study(made: Experiment) -> dict[str, xr.Dataset]:
    """The blind study of the two settings, made beside the store; what its raters said, once there are any."""
    arms = [str(arm) for arm in made.axes["arm"].to_numpy()]
    rows = _one_of_each(made)[:PAIRS]
    name = made.path.name.removesuffix(".zarr").replace(".", "-")
    of = Study(made.path.name, 1, 0, arms[1], arms[0], tuple(rows))
    write_study(made.path.parent, name, of)
    answers = read_answers(study_file(made.path.parent, name).with_suffix(".jsonl"))
    if not answers:
        return {}
    found = study.win_rates(answers, of.first_name, of.second_name)
    write_result(made.path, "study", found)
    return {"study": found}
