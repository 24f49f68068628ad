"""`interp evaluate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typing_extensions import Doc

from interp.base.errors import InputError, counted
from interp.base.executor import Execution
from interp.base.options import Loading, Sampling
from interp.base.sites import parse_indices
from interp.cli.console import graceful, progress, refuse_given, say
from interp.cli.experiments import DryRun, Spread, print_cost, saying_rates, spread_work
from interp.cli.results import AsJson, sections_of, show
from interp.cli.scorers import Scoring, masks_of, prompts_of, scorers_of
from interp.experiments.kind import BATCH_SIZE

if TYPE_CHECKING:
    import xarray as xr

    from interp.evaluation.gallery import Gallery
    from interp.evaluation.prompt_sets import PromptSet
    from interp.evaluation.protocols import Task
    from interp.store.experiment import Experiment
    from interp.store.traced_run import Run

TWICE, TOGETHER, DEMO, HERE = Sampling(repeats=2), Execution(batch_size=BATCH_SIZE), Loading("demo"), Spread()
FITTING = Scoring()


@dataclasses.dataclass(frozen=True)
class Asked:
    """What to draw."""

    preset: Annotated[
        str | None,
        Doc("A paper's table: dg-table-1, -2, -3, -6, dg-fig-5b, dg-fig-8, dg-app-i, fc-disruption, fc-segmentation."),
    ] = None
    guidance: Annotated[Sequence[str] | None, Doc("Your own settings in place of a preset, the baseline first.")] = None


@dataclasses.dataclass(frozen=True)
class Prompted:
    """Which prompts, and where the pictures go."""

    prompts: Annotated[
        str | None,
        Doc(
            "A prompts file; hpsv2, pick-a-pic or partiprompts from the hub; or NAME=COPY. "
            "[default: captions of the demo world]"
        ),
    ] = None
    count: Annotated[int | None, Doc("Number of prompts, from all styles in turn. [default: all; demo: 24]")] = None
    out: Annotated[Path | None, Doc("The store to draw into. [default: cache/PRESET-MODEL.zarr]")] = None


@dataclasses.dataclass(frozen=True)
class Compared:
    """What a preset needs of the model, and how settings are compared."""

    masks: Annotated[Path | None, Doc("fc-segmentation: folder of subject masks, NNNNN.png by row.")] = None
    channels: Annotated[
        str | None, Doc('Channels of Detail Guidance, such as "29" or "3,20-22". [default: the model\'s preset]')
    ] = None
    block: Annotated[int | None, Doc("Block m of Detail Guidance. [default: the model's preset, or a quarter in]")] = None
    baseline: Annotated[str | None, Doc("The setting to compare the others with. [default: the first]")] = None
    page: Annotated[
        Path | None, Doc("For folders of pictures: the page to write (.html); its numbers are written as .json.")
    ] = None
    margin: Annotated[float, Doc("Margin of equivalence, as a share of the baseline's deviation over prompts.")] = 0.2


DRAWING = (
    *("count", "out", "masks", "channels", "block", "dry_run"),
    *(field.name for kind in (Loading, Sampling, Spread) for field in dataclasses.fields(kind) if field.name != "device"),
    "batch_size",
)
"""Options that apply only where pictures are drawn."""


def evaluate(
    context: typer.Context,
    sources: Annotated[list[Path] | None, typer.Argument(help="Folders of pictures, or a store (a trace or a sweep).")] = None,
    asked: Asked = Asked(),
    loading: Loading = DEMO,
    prompted: Prompted = Prompted(),
    scoring: Scoring = FITTING,
    compared: Compared = Compared(),
    sampling: Sampling = TWICE,
    execution: Execution = TOGETHER,
    over: Spread = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Score existing pictures, or draw and score a paper's table: values, intervals, win rates, verdicts."""
    if bool(sources) == bool(asked.preset or asked.guidance):
        raise InputError("give either pictures or stores to score, or --preset (or --guidance) to draw pictures")
    if asked.preset and asked.guidance:
        raise InputError("give --preset or --guidance, not both")
    if not 0 <= compared.margin < float("inf"):
        raise InputError(f"margin must be 0 or a finite share above it, such as 0.2; got {compared.margin}")
    if sources:
        refuse_given(context, DRAWING, "goes with --preset or --guidance, which draw pictures; here they exist already")
        show(sections_of(_scored(sources, prompted.prompts, loading.device, scoring, compared)), as_json)
        return
    from interp.evaluation.protocols import results

    prompts = prompts_of(prompted.prompts, loading.model, scoring.scorer, prompted.count)
    through, here = spread_work(over, loading)
    task = _plan(asked.preset or asked.guidance or "", here, prompts, prompted.out, sampling, execution, compared)
    truth, first = _masks(task, loading.model, compared.masks), task.baseline(compared.baseline)
    print_cost(task.design.cost)
    if dry_run:
        return
    # fail on missing weights or unsuitable prompts before anything is drawn
    scorers = scorers_of(loading.model, loading.device, scoring, prompts.texts)
    with saying_rates(through), progress("cells") as on_progress, graceful() as stopped:
        made = task.design.run(through=through, on_progress=on_progress, stopped=stopped)
    found = results(task, made, scorers, baseline=first, margin=compared.margin, masks=truth)
    _say_kept(task, made, found)
    show(sections_of(found), as_json)


def _plan(
    what: str | Sequence[str],
    loading: Loading,
    prompts: PromptSet,
    out: Path | None,
    sampling: Sampling,
    execution: Execution,
    compared: Compared,
) -> Task:
    from interp.evaluation import recipes
    from interp.evaluation.protocols import plan
    from interp.experiments.ranking import ROWS
    from interp.tracing.model import load

    channels = None if compared.channels is None else parse_indices(compared.channels, "channels")
    one = recipes.recipe(what) if isinstance(what, str) else recipes.OWN
    path = out or Path("cache") / f"{one.name or 'evaluation'}-{Path(loading.model).name}.zarr"
    if one.kind in ("disruption", "collapse"):
        rows = min(ROWS, len(prompts.texts))
        say(f"{counted(rows, 'prompt')} traced once, first, to rank the channels: {path.stem}-channels.zarr")
    loaded = load(**vars(loading))
    return plan(what, loaded, prompts, path, sampling, execution, channels=channels, block=compared.block)


def _masks(task: Task, model: str, folder: Path | None) -> Any:
    """True masks of a segmentation, one per planned row."""
    if task.recipe.kind != "segmentation":
        if folder is not None:
            raise InputError("masks are for --preset fc-segmentation")
        return None
    if folder is None and not model.startswith("demo"):
        raise InputError(
            "preset fc-segmentation: true masks of the subject are needed for every picture; give --masks FOLDER "
            "(NNNNN.png by row, white is the subject); only the demo model derives them from its captions"
        )
    return masks_of(folder, task.texts)


def _say_kept(task: Task, made: Experiment | Run, found: dict[str, xr.Dataset]) -> None:
    from interp.store.answers import FOLDER

    say(f"kept in {made.path}: analysis/{', analysis/'.join(found)}")
    if task.recipe.kind == "study" and "study" not in found:
        folder = made.path.parent
        say(f"a blind study without answers is in {folder / FOLDER}: interp dashboard {folder}, page Study, view Rate")


def _scored(
    sources: list[Path], prompts: str | None, device: str, scoring: Scoring, compared: Compared
) -> dict[str, xr.Dataset]:
    """Score existing pictures. Results go into the store or, for folders, onto the page if one is given."""
    from interp.evaluation.scoring import evaluate as score
    from interp.report import report_pictures
    from interp.store.saved_results import write_result

    gallery, store = _gallery(sources, prompts)
    if store is not None and compared.page is not None:
        raise InputError(f"page is for folders of pictures; for a store, interp report {sources[0]} writes it")
    before = store.result("evaluation") if store is not None and "evaluation" in store.results else None
    table = str(before.attrs.get("preset", "")) if before is not None else ""
    if before is not None and table:
        settings = set(before["setting"].to_numpy())  # those with a prompt
        gallery = gallery.of_settings([number for number, one in enumerate(gallery.settings) if one in settings])
    scorers = scorers_of(str(gallery.facts.get("model", "")), device, scoring)
    found = {"evaluation": score(gallery, scorers, baseline=compared.baseline, margin=compared.margin)}
    if table:
        again = f"interp evaluate --preset {table} --out {sources[0]} with the arguments it was drawn with"
        say(f"not kept: {sources[0]} holds preset {table}'s own evaluation, and its table; {again} scores and keeps everything")
    elif store is not None:
        write_result(store.path, "evaluation", found["evaluation"])
        say(f"kept in {sources[0]}: analysis/evaluation")
    elif compared.page is not None:
        for path in report_pictures(gallery, found, compared.page):
            say(f"written: {path}")
    return found


def _gallery(sources: list[Path], prompts: str | None) -> tuple[Gallery, Experiment | Run | None]:
    """The pictures, and the store that holds them; none for folders of pictures."""
    from interp.evaluation import prompt_sets
    from interp.evaluation.gallery import of_folders, of_store, opened

    stores = [source for source in sources if (source / "zarr.json").exists()]
    if stores and len(sources) > 1:
        raise InputError("give one store, or several folders of pictures; compare settings of a store as arms of one sweep")
    if stores:
        store = opened(stores[0])
        return of_store(store), store
    if len({source.name for source in sources}) < len(sources):
        raise InputError("folders of pictures must have different names, since these name the settings")
    for source in sources:
        if not source.is_dir():
            raise InputError(f"{source} is neither a folder of pictures nor a store")
    texts = None if prompts is None else prompt_sets.read(prompts).texts
    return of_folders({source.name: source for source in sources}, texts), None
