"""Claims that a guidance improves pictures."""

from __future__ import annotations

from functools import partial

from interp.evaluation.gallery import of_experiment
from interp.evaluation.scoring import compare, score
from interp.findings.caused import all_seen, by_measure, verdicts_of
from interp.findings.claims import FAILS, HOLDS, PARTLY, PROMPT, UNKNOWN, Evidence, Verdict

KEPT = ("better", "no different, by more than the margin")
HELPS = (
    "holds: a measure of detail is better, after correction, none is worse, by itself either, and the prompt is measured and "
    "every measure of it better or no different; "
    "in part: better in one, worse in another; fails: worse and nothing better"
)


def guidance_helps(evidence: Evidence, name: str, base: str) -> Verdict:
    """Compare a guided setting with its base, by measures of detail and of the prompt."""
    if not evidence.scorers:
        return Verdict(UNKNOWN, "no measure of detail: give --scorer, such as hps,aesthetic,clip with their weights.")
    drawn = evidence.experiment("guidance")
    arms = dict(zip(("none", "dg", "cfg", "cfg+dg"), range(len(drawn.axes["arm"])), strict=True))
    scored = score(of_experiment(drawn), evidence.scorers).part(settings=[arms[base], arms[name]])
    found = compare(scored).isel(setting=1)
    said = verdicts_of(found, "over")
    about = [m for m in said if m.split(" (")[0] in PROMPT]  # unpublished weights are named in brackets
    detail = [m for m in said if m not in about]
    here, seen = by_measure(found, said, "over"), all_seen(found, said, "over_")
    if "worse" in said.values():
        return Verdict(PARTLY if "better" in said.values() else FAILS, here, seen=seen)
    if not about:
        here += " No measure of the prompt: give one, such as --scorer clip."
    kept = bool(about) and all(said[m] in KEPT for m in about)  # "not shown" is no evidence that the prompt is kept
    harmed = any(said[m].startswith("worse") for m in detail)  # by itself too
    return Verdict(HOLDS if kept and not harmed and "better" in map(said.get, detail) else UNKNOWN, here, seen=seen)


dg_helps = partial(guidance_helps, name="dg", base="none")
dg_helps_cfg = partial(guidance_helps, name="cfg+dg", base="cfg")
