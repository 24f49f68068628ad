"""Reproduce a paper's table on a model: prepare it with its cost, draw it (resumable), score it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import paired, segmentation, study
from interp.base.errors import InputError
from interp.base.executor import Execution
from interp.base.options import Sampling, split
from interp.base.plan import Record
from interp.base.sites import Select
from interp.evaluation import recipes
from interp.evaluation.gallery import of_experiment
from interp.evaluation.prompt_sets import PromptSet, in_turn
from interp.evaluation.scorer import Scorer
from interp.evaluation.scoring import MARGIN, compare, score
from interp.experiments.design import Cost, Drawing
from interp.experiments.kind import BATCH_SIZE, Kind
from interp.experiments.kinds.collapse import collapse
from interp.experiments.kinds.disrupt import disrupt
from interp.experiments.kinds.sweep import expand, sweep
from interp.runs.run import execute
from interp.store.answers import Study, read_answers, study_file, write_study
from interp.store.experiment import Experiment
from interp.store.locations import located
from interp.store.saved_results import write_result
from interp.store.schema import Array
from interp.store.traced_run import Run
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

Made = Experiment | Run
PAIRS = 100  # pairs of a study, as in App. I
K = 12  # channels of a segmentation, at most the model's: the number used by work that builds on Few Channels


@dataclasses.dataclass(frozen=True)
class Traced:
    """The traces of a segmentation, as a design: image tokens after the last step, in every block."""

    prepared: Prepared
    out: Path
    execution: Execution

    @property
    def cost(self) -> Cost:
        """Pictures, and forwards of one row."""
        rows = len(self.prepared.plan.rows())
        return Cost(rows, 1, rows, float(rows * len(self.prepared.schedule.timesteps)))

    def run(self, **changes: Any) -> Run:
        """Trace what is missing."""
        return execute(self.prepared, self.out, dataclasses.replace(self.execution, **changes))


@dataclasses.dataclass(frozen=True)
class Task:
    """A recipe, or user-defined settings, for one model, ready to be drawn and scored."""

    recipe: recipes.Recipe
    """Of a paper's table, or `recipes.OWN`."""
    prompts: PromptSet
    design: Drawing | Traced
    arms: tuple[str, ...]
    names: Mapping[str, str]
    """Arm -> the recipe's name of its setting."""

    def baseline(self, given: str | None) -> str | None:
        """The arm of this name, or of the recipe's setting of this name; checked before anything is drawn."""
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
    def texts(self) -> list[str]:
        """The prompt of every row: prompts x seeds."""
        return [row.text for row in self.design.prepared.plan.rows()]


def plan(
    what: str | Sequence[str],
    model: Model,
    prompts: PromptSet,
    out: str | Path,
    sampling: Sampling | None = None,
    execution: Execution | None = None,
    *,
    channels: Sequence[int] | None = None,
    block: int | None = None,
    **given: Any,
) -> Task:
    """Prepare a preset by name, or a list of guidances (the baseline first); `given` are fields of the sampling.

    `channels` and `block` replace the model's Detail Guidance preset, so that tables work for any model.
    """
    one = recipes.recipe(what) if isinstance(what, str) else recipes.OWN
    texts, path, blocks = list(prompts.texts), located(out), len(model.anatomy.blocks)
    drawn = sampling if sampling is not None else split(given, Sampling, of="plan")[0]
    how = execution or Execution(batch_size=BATCH_SIZE)
    unedited = one is recipes.OWN or one.kind in ("collapse", "segmentation")
    if unedited and (channels is not None or block is not None):
        raise InputError("channels and block are for presets of Detail Guidance and dg-fig-5b")

    def draw(kind: Kind, **options: Any) -> Any:
        return kind.prepare(model, kind.options(texts, **options), drawn, how, out=path)

    if one is recipes.OWN:
        return _armed(one, prompts, draw(sweep, guidance=list(what)))
    if one.kind == "segmentation":
        record = Record(stats=True, gates=False, hidden=Select(steps=(-1,)))
        return Task(one, prompts, Traced(prepare(model, texts, drawn, record=record), path, how), (one.name,), {})
    if one.kind == "collapse":
        return _armed(one, prompts, draw(collapse))
    preset = recipes.guidance_of(model.name, blocks, f"preset {one.name}", channels=channels, block=block)
    if one.kind == "disruption":
        return _armed(one, prompts, draw(disrupt, channels=list(preset.channels), blocks=[preset.block]))
    settings = recipes.settings(one, preset, blocks)
    names = {text: name for name, guidance in settings.items() for text, _ in expand(guidance)}
    return _armed(one, prompts, draw(sweep, guidance=list(settings.values())), names)


def _armed(one: recipes.Recipe, prompts: PromptSet, made: Drawing, names: Mapping[str, str] | None = None) -> Task:
    """A task of an experiment's arms; `names` are the recipe's names of its settings, by default the kinds of arms."""
    own = {arm.name: str(arm.labels["kind"]) for arm in made.arms if "kind" in arm.labels} if names is None else names
    return Task(one, prompts, made, tuple(arm.name for arm in made.arms), own)


def results(
    task: Task,
    made: Made,
    scorers: Sequence[Scorer],
    *,
    baseline: str | None = None,
    margin: float = MARGIN,
    masks: Array | None = None,
) -> dict[str, xr.Dataset]:
    """Score the drawn pictures and store the results, by name. `masks`: of a segmentation, (planned row, y, x) boolean."""
    found: dict[str, xr.Dataset] = {}
    if isinstance(made, Run):
        found["segmentation_score"] = _segmented(made, masks)
    else:
        scored = score(of_experiment(made), scorers)
        settings = list(scored.gallery.settings)
        unasked = {name for one in task.recipe.comparisons if not one.asked for name in one.settings}
        asked = [number for number, arm in enumerate(settings) if task.names.get(arm) not in unasked]
        found["evaluation"] = compare(scored.part(settings=asked), baseline=baseline, margin=margin)
        if "collapse" in made.results:
            found["collapse"] = made.result("collapse")
        for one in task.recipe.comparisons:
            numbers = [number for name in one.settings for number, arm in enumerate(settings) if task.names[arm] == name]
            part = scored.part(settings=numbers, asked=one.asked)
            found[f"evaluation_{one.name}"] = compare(part, margin=margin)
        if task.recipe.styles:
            styles = [task.prompts.style_of(text) for text in scored.gallery.prompts]
            for style in sorted({style for style in styles if style is not None}):
                rows = np.flatnonzero([own == style for own in styles]).tolist()
                found[f"evaluation_{plain_name(style)}"] = compare(scored.part(rows=rows), baseline=baseline, margin=margin)
    compared = {name: table for name, table in found.items() if "p_holm" in table}
    found |= paired.correct_together(compared)
    said = {"preset": task.recipe.name, **task.prompts.facts()}
    if task.recipe is not recipes.OWN:
        said |= {"table": task.recipe.table, "paper_prompts": task.recipe.prompts}
    named = {name: _named(result.assign_attrs(said), task) for name, result in found.items()}
    for name, result in named.items():
        write_result(made.path, name.replace("-", "_"), result)
    if isinstance(made, Experiment) and task.recipe.kind == "study":
        named |= _study(made)
    return named


def plain_name(style: str) -> str:
    """A style as part of a result's name: PartiPrompts has "Food & Beverage"."""
    return re.sub(r"\W+", "_", style).strip("_")


def _named(found: xr.Dataset, task: Task) -> xr.Dataset:
    """Add the recipe's names of the settings and the paper's numbers for each."""
    if task.recipe is recipes.OWN or "setting" not in found.dims:
        return found
    names = [task.names[str(arm)] for arm in found["setting"].to_numpy()]
    numbers = recipes.reported(task.recipe.name)
    said = [recipes.of_setting(numbers, name) for name in names]
    return found.assign_coords(name=("setting", np.array(names, object)), paper=("setting", np.array(said, object)))


def _segmented(run: Run, masks: Array | None) -> xr.Dataset:
    if masks is None:
        raise InputError("masks must be given for a segmentation, (row, y, x) boolean: the subject's pixels")
    done = run.images["prompt"].to_numpy()
    return segmentation.score(run, masks[done], k=min(K, run.stats.sizes["channel"] // 4))


def _study(made: Experiment) -> dict[str, xr.Dataset]:
    """Create the blind study of the two settings next to the store; return its raters' answers, if there are any."""
    arms = [str(arm) for arm in made.axes["arm"].to_numpy()]
    drawn = np.flatnonzero(made.done.all(axis=1))
    order = in_turn(made.axes["prompt_text"].to_numpy()[drawn].tolist())  # the first seeds of all prompts come first
    rows = [int(row) for row in drawn[order][:PAIRS]]
    name = made.path.name.removesuffix(".zarr").replace(".", "-")
    of = Study(made.path.name, 1, 0, arms[1], arms[0], tuple(rows))
    write_study(made.path.parent, name, of)
    answers = read_answers(study_file(made.path.parent, name).with_suffix(".jsonl"))
    if not answers:
        return {}
    found = study.win_rates(answers, of.first_name, of.second_name)
    write_result(made.path, "study", found)
    return {"study": found}
