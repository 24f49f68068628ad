"""The verdict page of a campaign: a conclusion, every claim with its rule, verdict and measured values, figures, and stores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from interp.base.errors import InputError
from interp.figures import causes, channels
from interp.findings.campaign import Campaign, Judged, counted
from interp.findings.claims import FAILS, HOLDS, MEASURED, PARTLY, UNKNOWN, Evidence
from interp.findings.stages import Stage
from interp.report.page import Link, Page, write

CLAIM = ("name", "claim", "source", "rule")
HEAD = ("finding", "the paper says", "verdict", "measured here", "would have been seen", "rule", "source")
OF_TRACE: dict[str, Callable[[Evidence], Any]] = {
    "sizes over blocks": lambda evidence: channels.layers(evidence.profile),
    "sizes over timesteps": lambda evidence: channels.trend(evidence.trend),
    "timestep, prompt and noise": lambda evidence: causes.attribution(evidence.attribution),
    "writers": lambda evidence: causes.residual(evidence.residual),
}
"""Figures of the trace that selects the channels."""


def report(campaign: Campaign, judged: Sequence[Judged], out: str | Path, *, static: bool = False) -> tuple[Path, Path]:
    """Write OUT (.html) and the same data as .json. `static` embeds the figures as drawings, without scripts."""
    facts = campaign.facts()
    page = Page(f"{campaign.setup.model.name}: the papers' findings", static)
    for line in conclusion(judged):
        page.text(line, quiet=False)
    page.text(
        'Verdicts follow from intervals, except for "every token" and "alpha peaks", which use means alone. The '
        "results apply only to this model, these prompts and these measures. An effect of the size that would have been seen "
        "is shown by four of five such campaigns."
    )
    repeats, steps = campaign.setup.drawn.repeats, campaign.setup.drawn.steps or campaign.setup.model.defaults.steps
    page.text(
        f"{len(campaign.setup.texts)} prompts ({facts['prompts']}, SHA-256 {facts['prompts_sha256'][:16]}...), {repeats} "
        f"noises per prompt (govern, dose, lens: 1), {steps} steps, seed {campaign.setup.drawn.seed}; weights "
        f"{facts['weights']}; the disrupted block: {campaign.setup.block}. "
        f"Measures of detail and prompt: {facts['scorers'] or 'none'}."
    )
    drawn = {stage.name: list(_figures(stage, campaign.evidence)) for stage in campaign.stages}
    page.heading("Claims")
    page.table(HEAD, [_row(one, drawn) for one in judged if one.verdict.said != MEASURED])
    rest = [one for one in judged if one.verdict.said == MEASURED]
    if rest:
        page.heading("Measured, claimed by no paper")
        page.table(("finding", "measured here"), [(_linked(one, drawn), one.verdict.here) for one in rest])
    for stage in (stage for stage in campaign.stages if drawn[stage.name]):
        page.heading(_title(stage.name))
        for made in drawn[stage.name]:
            page.figure(made)
    page.heading("Where the numbers are")
    where = [(stage.name, stage.about, stage.path(campaign.setup).name) for stage in campaign.stages]
    page.table(("experiment", "what", "store"), where)
    found = [{**{name: getattr(one.claim, name) for name in CLAIM}, **dataclasses.asdict(one.verdict)} for one in judged]
    return write(page, {**facts, "conclusion": conclusion(judged), "findings": found}, out)


def conclusion(judged: Sequence[Judged]) -> list[str]:
    """What holds, holds in part, does not hold, and cannot be told: the claims by verdict."""
    names = {word: [one.claim.name for one in judged if one.verdict.said == word] for word in (HOLDS, PARTLY, FAILS, UNKNOWN)}
    total = sum(number for word, number in counted(judged).items() if word != MEASURED)
    lines = [f"Of {total} claims, {len(names[HOLDS])} hold, {len(names[PARTLY])} in part, {len(names[FAILS])} do not hold."]
    return lines + [f"{word.capitalize()}: {'; '.join(found)}." for word, found in names.items() if found]


def _figures(stage: Stage, evidence: Evidence) -> Iterator[Any]:
    """A stage's figures; those that need what this model or run lacks are left out."""
    makers: list[Callable[[], Any]] = []
    if stage.name == "crossed":
        makers = [partial(make, evidence) for make in OF_TRACE.values()]
    elif stage.kind is not None:
        for name, figure in stage.kind.figures.items():
            chosen = next(iter(figure.each(name, {}).values()))
            makers.append(partial(_of_store, stage, evidence, figure, chosen))
    for make in makers:
        try:
            yield make()
        except InputError:
            continue


def _of_store(stage: Stage, evidence: Evidence, figure: Any, chosen: dict[str, str]) -> Any:
    return figure.make(figure.of(evidence.experiment(stage.name), chosen), chosen)


def _title(stage: str) -> str:
    return f"Figures: {stage}"


def _linked(one: Judged, drawn: dict[str, list[Any]]) -> str | Link:
    stages = [name for name in one.claim.needs if drawn.get(name)]
    return Link(one.claim.name, _title(stages[-1])) if stages else one.claim.name


def _row(one: Judged, drawn: dict[str, list[Any]]) -> tuple[Any, ...]:
    verdict, claim = one.verdict, one.claim
    return (_linked(one, drawn), claim.claim, verdict.said, verdict.here, verdict.seen, claim.rule, claim.source)
