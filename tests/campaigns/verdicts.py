"""Verdicts of `interp findings` on models without pictures of prompts, and tables of several campaigns' verdicts.

    python tests/campaigns/verdicts.py nulls --out cache/nulls
    python tests/campaigns/verdicts.py table demo=cache/findings-demo/findings.json flux=cache/findings-flux/findings.json
    python tests/campaigns/verdicts.py measured cache/findings-demo/findings.json

`nulls` runs all findings on random weights of three families, on the demo with shuffled captions, deaf to words, and with
pictures of noise, and prints for each how many claims hold, and which would by their rules without what they require.
`table` prints the verdicts side by side, and the share of pairs that agree; `measured` one campaign's verdicts and values.
The suite runs a short form (tests/test_nulls.py).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import null_models

import interp
from interp.evaluation import prompt_sets
from interp.evaluation.demo_scorer import DemoScorer, real_pictures, subject_masks
from interp.evaluation.scorer import Plain
from interp.findings.campaign import Campaign, campaign, counted
from interp.findings.claims import FAILS, HOLDS, MEASURED, PARTLY, UNKNOWN
from interp.models.quiet import quiet
from interp.report.verdicts import report

OPPOSITE = {HOLDS, FAILS}
SHORT = {HOLDS: "holds", PARTLY: "in part", FAILS: "fails", UNKNOWN: "-", MEASURED: ""}


def untrained(family: str, seed: int, folder: Path, count: int, **given: Any) -> Campaign:
    """All findings on random weights."""
    texts = tuple(null_models.prompts_of(family, count))
    prompts = prompt_sets.PromptSet("words", texts, (None,) * len(texts), "the tiny models' words")
    model = null_models.untrained(family, folder / "model", seed)
    return campaign(model, prompts, folder, scorers=(Plain(),), **given)


def of_demo(model: interp.Model, folder: Path, count: int, **given: Any) -> Campaign:
    """All findings on a changed demo, judged by the demo's scorer."""
    prompts = prompt_sets.demo(count)
    truth = {"masks": subject_masks(prompts.texts), "reference": real_pictures(prompts.texts)}
    return campaign(model, prompts, folder, scorers=(DemoScorer(),), **truth, **given)


CASES: Mapping[str, Callable[..., Campaign]] = {
    **{
        f"random {family} {seed}": (lambda folder, family=family, seed=seed, **given: untrained(family, seed, folder, **given))
        for family in null_models.FAMILIES
        for seed in (0, 1)
    },
    "shuffled captions": lambda folder, **given: of_demo(null_models.misheard(), folder, **given),
    "deaf to words": lambda folder, **given: of_demo(null_models.deaf(), folder, **given),
    "pictures of noise": lambda folder, **given: of_demo(null_models.noisy(), folder, **given),
}


def alone(made: Campaign) -> list[str]:
    """The claims that hold by their rules, without what they require beside massive channels."""
    evidence, held = made.evidence, []
    for claim in made.claims:
        try:
            if not ("massive" in claim.requires and evidence.lacks("massive")) and claim.judge(evidence).said == HOLDS:
                held.append(claim.name)
        except interp.InputError:
            continue
    return held


def nulls(names: Sequence[str], out: Path, **given: Any) -> None:
    """Run the cases and print one line for each."""
    columns = ["network", "claims", "hold", "in part", "do not hold", "cannot tell", "hold by the rule alone"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in names:
        folder = out / name.replace(" ", "-")
        with quiet():
            made = CASES[name](folder, **given)
            judged = made.run()
            report(made, judged, folder / "findings.html")
        held = [one.claim.name for one in judged if one.verdict.said == HOLDS]
        count = {word: counted(judged).get(word, 0) for word in (HOLDS, PARTLY, FAILS, UNKNOWN)}
        said = f" ({', '.join(held)})" if held else ""
        numbers = " | ".join(str(number) for number in list(count.values())[1:])
        rules = ", ".join(alone(made)) or "none"
        print(f"| {name} | {sum(count.values())} | {count[HOLDS]}{said} | {numbers} | {rules} |", flush=True)


def table(campaigns: Mapping[str, Path]) -> None:
    """Claims x campaigns, then the agreement of all pairs of campaigns."""
    found = {name: json.loads(path.read_text())["findings"] for name, path in campaigns.items()}
    said = {name: {one["name"]: one["said"] for one in rows if one["said"] != MEASURED} for name, rows in found.items()}
    first = next(iter(said.values()))
    print(f"| claim | {' | '.join(said)} |\n|---|{'---|' * len(said)}")
    for claim in first:
        print(f"| {claim} | {' | '.join(SHORT[one.get(claim, UNKNOWN)] for one in said.values())} |")
    pairs = [(one[claim], other[claim]) for claim in first for one, other in itertools.combinations(said.values(), 2)]
    alike, opposite = sum(one == other for one, other in pairs), sum({one, other} == OPPOSITE for one, other in pairs)
    print(f"\n{alike} of {len(pairs)} pairs of verdicts agree ({alike / max(len(pairs), 1):.0%}); {opposite} are opposite.")


def measured(path: Path) -> None:
    """Claims, verdicts, measured values, and what would have been seen."""
    print("| claim | verdict | measured | would have been seen |\n|---|---|---|---|")
    for one in json.loads(path.read_text())["findings"]:
        said = "measured" if one["said"] == MEASURED else f"**{one['said']}**"
        paper = f": {one['claim']}" if one["claim"] != "-" else ""
        cells = (f"{one['name']}{paper}", said, one["here"].replace("|", "\\|"), one.get("seen", ""))
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("nulls")
    run.add_argument("names", nargs="*", default=list(CASES))
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--count", type=int, default=10)
    run.add_argument("--repeats", type=int, default=2)
    run.add_argument("--steps", type=int)
    run.add_argument("--budget", type=int, default=600)
    shown = commands.add_parser("table")
    shown.add_argument("campaigns", nargs="+", metavar="NAME=FILE")
    alone_shown = commands.add_parser("measured")
    alone_shown.add_argument("path", type=Path)
    given = vars(parser.parse_args())
    command = given.pop("command")
    if command == "measured":
        measured(**given)
    elif command == "table":
        table({name: Path(path) for name, _, path in (one.partition("=") for one in given["campaigns"])})
    else:
        nulls(**given)


if __name__ == "__main__":
    main()
