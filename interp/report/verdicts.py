"""The verdict page of a campaign: every claim with its rule, verdict, measured values and stores."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from interp.findings.campaign import Campaign, Judged, counted
from interp.findings.claims import MEASURED
from interp.report.page import Page, write

CLAIM = ("name", "claim", "source", "rule")
HEAD = ("finding", "the paper says", "verdict", "measured here", "rule", "source")


def report(campaign: Campaign, judged: Sequence[Judged], out: str | Path) -> tuple[Path, Path]:
    """Write OUT (.html) and the same data as .json."""
    facts = campaign.facts()
    page = Page(f"{campaign.setup.model.name}: the papers' findings")
    page.text(", ".join(f"{number} {word}" for word, number in counted(judged).items()) + ".", quiet=False)
    page.text(
        'Verdicts follow from intervals, except for "every token" and "alpha peaks", which use means alone. The '
        "results apply only to this model, these prompts and these measures."
    )
    repeats, steps = campaign.setup.drawn.repeats, campaign.setup.drawn.steps or campaign.setup.model.defaults.steps
    page.text(
        f"{len(campaign.setup.texts)} prompts ({facts['prompts']}, SHA-256 {facts['prompts_sha256'][:16]}...), {repeats} "
        f"noises per prompt (govern, dose, lens: 1), {steps} steps, seed {campaign.setup.drawn.seed}; weights "
        f"{facts['weights']}; the disrupted block: {campaign.setup.block}. "
        f"Measures of detail and prompt: {facts['scorers'] or 'none'}."
    )
    claimed = [one for one in judged if one.verdict.said != MEASURED]
    page.heading("Claims")
    page.table(HEAD, [_row(one) for one in claimed])
    rest = [one for one in judged if one.verdict.said == MEASURED]
    if rest:
        page.heading("Measured, claimed by no paper")
        page.table(("finding", "measured here"), [(one.claim.name, one.verdict.here) for one in rest])
    page.heading("Where the numbers are")
    where = [(stage.name, stage.about, stage.path(campaign.setup).name) for stage in campaign.stages]
    page.table(("experiment", "what", "store"), where)
    found = [{**{name: getattr(one.claim, name) for name in CLAIM}, **dataclasses.asdict(one.verdict)} for one in judged]
    return write(page, {**facts, "findings": found}, out)


def _row(one: Judged) -> tuple[str, ...]:
    return (one.claim.name, one.claim.claim, one.verdict.said, one.verdict.here, one.claim.rule, one.claim.source)
