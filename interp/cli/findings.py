"""`interp findings`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typing_extensions import Doc

from interp.base.errors import InputError
from interp.base.executor import Execution
from interp.base.options import Loading, Sampling
from interp.cli.console import graceful, print_json, print_table, say, tenths
from interp.cli.experiments import DryRun
from interp.cli.results import AsJson
from interp.cli.scorers import Scoring, masks_of, of_demo, prompts_of, scorers_of
from interp.experiments.kind import BATCH_SIZE

if TYPE_CHECKING:
    from interp.findings.campaign import Campaign
    from interp.findings.stages import Stage

DEMO, TOGETHER = Loading("demo"), Execution(batch_size=BATCH_SIZE)
CROSSED = Sampling(repeats=2)


@dataclasses.dataclass(frozen=True)
class Tested:
    """Which findings, on which prompts, and where the results go."""

    prompts: Annotated[str | None, Doc("A prompts file, or a list's name. [default: captions of the demo world]")] = None
    count: Annotated[int | None, Doc("Number of prompts. [default: all; demo: 24]")] = None
    out: Annotated[Path | None, Doc("Folder for all stores. [default: cache/findings-MODEL]")] = None
    page: Annotated[
        Path | None, Doc("The page of verdicts. [default: findings.html in --out; with --only, findings-NAME.html]")
    ] = None
    only: Annotated[Sequence[str] | None, Doc("A finding by name; repeat for more. [default: all]")] = None
    other: Annotated[
        Sequence[str] | None,
        Doc("An earlier checkpoint or another size; repeat for more. [default for demo: demo-early]"),
    ] = None
    masks: Annotated[Path | None, Doc("Folder of subject masks, NNNNN.png by prompt.")] = None
    static: Annotated[bool, Doc("Static figures, no scripts (needs the extra `export`).")] = False


@dataclasses.dataclass(frozen=True)
class Detail(Scoring):
    """What scores detail."""

    scorer: Annotated[str, Doc("Scorer of detail: demo, metrics with weights such as hps,clip, or auto.")] = "auto"
    weights: Annotated[Sequence[str] | None, Doc("A metric's weights: METRIC=FOLDER, FILE or hub id.")] = None
    real: Path | None = None  # no flag: findings have their own reference


ALL, FITTING = Tested(), Detail()


def findings(
    loading: Loading = DEMO,
    tested: Tested = ALL,
    scoring: Detail = FITTING,
    budget: Annotated[int, typer.Option(help="Number of pictures of the dose experiment.")] = 600,
    sampling: Sampling = CROSSED,
    execution: Execution = TOGETHER,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Test the papers' findings on a model: print the cost, run all experiments, write a page of verdicts. Resumable."""
    from interp.findings.campaign import campaign
    from interp.report.verdicts import report
    from interp.tracing.model import load

    if tested.page is not None and tested.page.suffix != ".html":
        raise InputError(f"page must end in .html; got {tested.page.name!r}")
    model, only = loading.model, tested.only
    chosen = prompts_of(tested.prompts, model, scoring.scorer, tested.count)
    loaded = load(**vars(loading))
    of_world = of_demo(model, scoring.scorer)
    others = tested.other if tested.other is not None else ["demo-early"] if model == "demo" else []
    given: dict[str, Any] = {"drawn": sampling, "budget": budget, "batch_size": execution.batch_size, "others": tuple(others)}
    given |= _truth(tested.masks, chosen.texts, of_world)
    unmeasured = scoring.scorer == "auto" and not of_world
    scorers = [] if unmeasured else scorers_of(model, loading.device, scoring, chosen.texts)
    folder = tested.out or Path("cache") / f"findings-{Path(model).name}"
    made = campaign(loaded, chosen, folder, only=only, scorers=scorers, **given)
    _say_cost(made)
    if dry_run:
        return
    with graceful() as stopped:
        judged = made.run(on_stage=_say_stage, on_progress=tenths("cells"), stopped=stopped)
    some = "-".join(["findings", *(re.sub(r"\W+", "_", name) for name in only or [])])  # --only has its own page
    paths = report(made, judged, tested.page or folder / f"{some}.html", static=tested.static)
    if as_json:
        print_json(
            {
                one.claim.name: {"verdict": one.verdict.said, "measured": one.verdict.here, "rule": one.claim.rule}
                for one in judged
            }
        )
        return
    rows = [[one.claim.name, one.claim.claim, one.verdict.said, one.verdict.here] for one in judged]
    print_table("findings", ["finding", "the paper says", "verdict", "measured here"], rows)
    for path in paths:
        print(path)


def _truth(masks: Path | None, texts: Sequence[str], of_world: bool) -> dict[str, Any]:
    """Masks and real pictures; for models of the demo world they are made from whole captions."""
    if masks is not None:
        return {"masks": masks_of(masks, texts)}
    if not of_world:
        return {}
    from interp.evaluation.demo_scorer import is_whole, real_pictures

    made = {"masks": masks_of(None, texts)} if all(map(is_whole, texts)) else {}
    return {**made, "reference": real_pictures(texts)}


def _say_cost(made: Campaign) -> None:
    """Print an upper bound of every experiment's cost, and the estimated time."""
    pace, cost = made.pace(), made.cost()
    minutes = {stage.name: stage.seconds(made.setup, pace) / 60 for stage in made.stages}
    for name, forwards in cost.items():
        say(f"{name}: up to {forwards:,.0f} forwards of one picture, {minutes[name]:.1f} min")
    each = f"{pace.drawn * 1000:.3g} ms each drawn, {pace.traced * 1000:.3g} traced, {pace.store:.2g} s a traced store"
    say(f"total: up to {sum(cost.values()):,.0f} forwards: {sum(minutes.values()):.0f} min ({each})")


def _say_stage(number: int, total: int, stage: Stage) -> None:
    say(f"[{number}/{total}] {stage.name}: {stage.about}")
