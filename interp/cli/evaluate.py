"""`interp evaluate`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.base.errors import InputError
from interp.base.executor import Execution
from interp.base.options import Loading, Sampling
from interp.base.sites import parse_indices
from interp.cli.console import graceful, progress, refuse_given, say
from interp.cli.experiments import DryRun, print_cost
from interp.cli.results import AsJson, show
from interp.cli.scored import sections_of
from interp.cli.scorers import scorers_of
from interp.cli.workers import Spread, saying_rates, spread_work
from interp.experiments.kind import BATCH_SIZE

if TYPE_CHECKING:
    import xarray as xr

    from interp.evaluation.gallery import Gallery
    from interp.evaluation.prompt_sets import PromptSet
    from interp.evaluation.protocols import Made, Task

Option = typer.Option


TWICE, TOGETHER, DEMO, HERE = Sampling(repeats=2), Execution(batch_size=BATCH_SIZE), Loading("demo"), Spread()
DRAWING = (
    *("count", "out", "masks", "channels", "block", "dry_run"),
    *(field.name for kind in (Loading, Sampling, Spread) for field in dataclasses.fields(kind) if field.name != "device"),
    "batch_size",
)
"""Options that apply only where pictures are drawn."""


def evaluate(
    context: typer.Context,
    sources: Annotated[list[Path] | None, typer.Argument(help="Folders of pictures, or a store (a trace or a sweep).")] = None,
    preset: Annotated[
        str | None,
        Option(help="A paper's table: dg-table-1, -2, -3, -6, dg-fig-5b, dg-fig-8, dg-app-i, fc-disruption, fc-segmentation."),
    ] = None,
    guidance: Annotated[list[str] | None, Option(help="Your own settings in place of a preset, the baseline first.")] = None,
    loading: Loading = DEMO,
    prompts: Annotated[
        str | None,
        Option(
            help="A prompts file; hpsv2, pick-a-pic or partiprompts from the hub; or NAME=COPY. "
            "[default: captions of the demo world]"
        ),
    ] = None,
    count: Annotated[int | None, Option(help="Number of prompts, from all styles in turn. [default: all; demo: 24]")] = None,
    out: Annotated[Path | None, Option(help="The store to draw into. [default: cache/PRESET-MODEL.zarr]")] = None,
    scorer: Annotated[
        str, Option(help="demo (the demo world's judge), plain, metrics with weights such as clip,hps, or auto.")
    ] = "auto",
    weights: Annotated[
        list[str] | None, Option(help="A metric's weights: METRIC=FOLDER, FILE or hub id. [default: the hub]")
    ] = None,
    real: Annotated[Path | None, Option(help="Folder of real pictures, for fid, precision and recall.")] = None,
    masks: Annotated[Path | None, Option(help="fc-segmentation: folder of subject masks, NNNNN.png by row.")] = None,
    channels: Annotated[
        str | None, Option(help='Channels of Detail Guidance, such as "29" or "3,20-22". [default: the model\'s preset]')
    ] = None,
    block: Annotated[
        int | None, Option(help="Block m of Detail Guidance. [default: the model's preset, or a quarter in]")
    ] = None,
    baseline: Annotated[str | None, Option(help="The setting to compare the others with. [default: the first]")] = None,
    page: Annotated[
        Path | None, Option(help="For folders of pictures: the page to write (.html); its numbers are written as .json.")
    ] = None,
    margin: Annotated[float, Option(help="Margin of equivalence, as a share of the baseline's deviation over prompts.")] = 0.2,
    sampling: Sampling = TWICE,
    execution: Execution = TOGETHER,
    over: Spread = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Score existing pictures, or draw and score a paper's table: values, intervals, win rates, verdicts."""
    if bool(sources) == bool(preset or guidance):
        raise InputError("give either pictures or stores to score, or --preset (or --guidance) to draw pictures")
    if preset and guidance:
        raise InputError("give --preset or --guidance, not both")
    if not 0 <= margin < float("inf"):
        raise InputError(f"margin must be 0 or a finite share above it, such as 0.2; got {margin}")
    scoring: dict[str, Any] = {"name": scorer, "weights": weights or [], "real": real, "device": loading.device}
    model = loading.model
    if sources:
        refuse_given(context, DRAWING, "goes with --preset or --guidance, which draw pictures; here they exist already")
        found = _scored(sources, prompts, scoring, baseline, margin, page)
    else:
        chosen = prompts_of(prompts, model, count)
        through, here = spread_work(over, loading)
        edited = {"channels": None if channels is None else parse_indices(channels, "channels"), "block": block}
        task = _plan(preset or guidance or "", here, chosen, out, sampling, execution, edited)
        truth = _masks(task, model, masks)
        first = task.baseline(baseline)
        print_cost(task.design.cost)
        if dry_run:
            return
        scorers = scorers_of(model, **scoring)  # fail on missing weights or unsuitable prompts before anything is drawn
        for one in scorers:
            one.check(chosen.texts)
        with saying_rates(through), progress("cells") as on_progress, graceful() as stopped:
            made = task.design.run(through=through, on_progress=on_progress, stopped=stopped)
        found = _results(task, made, scorers, baseline=first, margin=margin, masks=truth)
    show(sections_of(found), as_json)


def prompts_of(given: str | None, model: str, count: int | None) -> PromptSet:
    """Prompts by name or file; by default the demo model's own prompts."""
    from interp.evaluation import prompt_sets

    if given is None and not model.startswith("demo"):
        raise InputError(f"prompts: give --prompts FILE for {model}; only the demo model has default prompts")
    return prompt_sets.read(given or prompt_sets.DEMO, count)


def _plan(
    what: str | list[str],
    loading: Loading,
    prompts: PromptSet,
    out: Path | None,
    sampling: Sampling,
    execution: Execution,
    edited: dict[str, Any],
) -> Task:
    from interp.evaluation import recipes
    from interp.evaluation.protocols import plan
    from interp.experiments.ranking import ROWS
    from interp.tracing.model import load

    one = recipes.recipe(what) if isinstance(what, str) else None
    path = out or Path("cache") / f"{one.name if one is not None else 'evaluation'}-{Path(loading.model).name}.zarr"
    if one is not None and one.kind in ("disruption", "collapse"):
        rows = min(ROWS, len(prompts.texts))
        say(f"first, {rows} prompts are traced once to rank the channels ({path.stem}-channels.zarr)")
    return plan(what, load(**vars(loading)), prompts, path, sampling, execution, **edited)


def _masks(task: Task, model: str, folder: Path | None) -> Any:
    """True masks of a segmentation, one per planned row: from a folder or, for the demo model, from the captions."""
    from interp.analysis.segmentation import read_masks
    from interp.evaluation.demo_scorer import subject_masks

    if task.recipe is None or task.recipe.kind != "segmentation":
        if folder is not None:
            raise InputError("masks are for --preset fc-segmentation")
        return None
    if folder is not None:
        return read_masks(folder, range(task.rows))
    if not model.startswith("demo"):
        raise InputError(
            "preset fc-segmentation: true masks of the subject are needed for every picture; give --masks FOLDER "
            "(NNNNN.png by row, white is the subject); only the demo model derives them from its captions"
        )
    return subject_masks(task.texts)


def _results(task: Task, made: Made, scorers: list[Any], **given: Any) -> dict[str, xr.Dataset]:
    from interp.evaluation.protocols import results
    from interp.store.studies import FOLDER

    found = results(task, made, scorers, **given)
    say(f"kept in {made.path}: analysis/{', analysis/'.join(found)}")
    if task.recipe is not None and task.recipe.kind == "study" and "study" not in found:
        folder = made.path.parent
        say(f"a blind study without answers is in {folder / FOLDER}: interp dashboard {folder}, page Study, view Rate")
    return found


def _scored(
    sources: list[Path],
    prompts: str | None,
    scoring: dict[str, Any],
    baseline: str | None,
    margin: float,
    page: Path | None,
) -> dict[str, xr.Dataset]:
    """Score existing pictures. Results go into the store or, for folders, onto the page if one is given."""
    from interp.evaluation.scoring import evaluate as score
    from interp.report import report_pictures
    from interp.store.experiment import is_experiment, open_experiment
    from interp.store.saved_results import write_result
    from interp.store.traced_run import open_run

    gallery = _gallery(sources, prompts)
    one = len(sources) == 1 and (sources[0] / "zarr.json").exists()
    if one and page is not None:
        raise InputError(f"page is for folders of pictures; for a store, interp report {sources[0]} writes it")
    kept = (open_experiment(sources[0]) if is_experiment(sources[0]) else open_run(sources[0])) if one else None
    before = kept.result("evaluation") if kept is not None and "evaluation" in kept.results else None
    table = str(before.attrs.get("preset", "")) if before is not None else ""
    if before is not None and table:
        compared = set(before["setting"].to_numpy())  # the settings with a prompt
        gallery = gallery.of_settings([number for number, one in enumerate(gallery.settings) if one in compared])
    scorers = scorers_of(str(gallery.facts.get("model", "")), **scoring)
    found = {"evaluation": score(gallery, scorers, baseline=baseline, margin=margin)}
    if table:
        again = f"interp evaluate --preset {table} --out {sources[0]} with the arguments it was drawn with"
        say(f"not kept: {sources[0]} holds preset {table}'s own evaluation, and its table; {again} scores and keeps everything")
    elif kept is not None:
        write_result(kept.path, "evaluation", found["evaluation"])
        say(f"kept in {sources[0]}: analysis/evaluation")
    elif page is not None:
        for path in report_pictures(gallery, found, page):
            say(f"written: {path}")
    return found


def _gallery(sources: list[Path], prompts: str | None) -> Gallery:
    from interp.evaluation import prompt_sets
    from interp.evaluation.gallery import of_experiment, of_folders, of_run
    from interp.store.experiment import is_experiment, open_experiment
    from interp.store.traced_run import open_run

    stores = [source for source in sources if (source / "zarr.json").exists()]
    if stores and len(sources) > 1:
        raise InputError("give one store, or several folders of pictures; compare settings of a store as arms of one sweep")
    if stores:
        return of_experiment(open_experiment(stores[0])) if is_experiment(stores[0]) else of_run(open_run(stores[0]))
    if len({source.name for source in sources}) < len(sources):
        raise InputError("folders of pictures must have different names, since these name the settings")
    for source in sources:
        if not source.is_dir():
            raise InputError(f"{source} is neither a folder of pictures nor a store")
    texts = None if prompts is None else prompt_sets.read(prompts).texts
    return of_folders({source.name: source for source in sources}, texts)
