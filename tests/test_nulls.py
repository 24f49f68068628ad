"""The short form of `tests/campaigns/verdicts.py nulls`: no claim about massive channels, detail or guidance holds of a network
that draws no pictures of its prompts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "campaigns"))

import null_models
import verdicts

from interp.evaluation import prompt_sets
from interp.evaluation.demo_scorer import DemoScorer
from interp.findings.campaign import CLAIMS, campaign
from interp.findings.claims import FAILS, HOLDS, PARTLY, UNKNOWN

SHORT = {"count": 5, "steps": 2, "budget": 80}
OF_GATES = ["gates by timestep"]
"""Claims about gates alone, which are true of some networks without pictures."""


@pytest.mark.long
@pytest.mark.parametrize("name", ["random sd3 0", "random flux 0", "random dit 0", "pictures of noise"])
def test_nothing_holds_of_a_network_without_pictures(name: str, tmp_path: Path) -> None:
    short = SHORT if name.startswith("random") else {**SHORT, "budget": 150}
    judged = verdicts.CASES[name](tmp_path, **short).run()
    assert len(judged) == len(CLAIMS)
    said = {one.claim.name: one.verdict.said for one in judged if one.claim.source != "-"}
    assert [claim for claim, word in said.items() if word == HOLDS and claim not in OF_GATES] == []
    assert sum(word == UNKNOWN for word in said.values()) >= len(said) - 2


@pytest.mark.parametrize(("made", "reason"), [(null_models.misheard, "fit their own prompts better"), (null_models.deaf, "")])
def test_pictures_of_other_captions_are_not_of_theirs(made: object, reason: str, tmp_path: Path) -> None:
    """The demo with its captions shuffled draws good pictures, of other captions; deaf to words, of none."""
    asked = campaign(made(), prompt_sets.demo(8), tmp_path, only=["few channels"], scorers=(DemoScorer(),), steps=8)  # type: ignore[operator]
    (judged,) = asked.run()
    assert judged.verdict.said == UNKNOWN
    assert reason in judged.verdict.here
    assert "Measured: channels [29]" in judged.verdict.here
    assert asked.claims[0].judge(asked.evidence).said == HOLDS, "of its states it is true"


def test_pictures_of_their_captions_are(tmp_path: Path) -> None:
    asked = campaign(null_models.demo(), prompt_sets.demo(8), tmp_path, only=["few channels"], scorers=(DemoScorer(),), steps=8)
    (judged,) = asked.run()
    assert judged.verdict.said == HOLDS
    assert float(asked.evidence.fits["semantics"].low) > 0.1


def test_the_table_counts_agreement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"one": [HOLDS, FAILS, "measured: no paper claims it"], "two": [HOLDS, PARTLY, "-"], "three": [FAILS, FAILS, "-"]}
    paths = {}
    for name, words in said.items():
        rows = [{"name": claim, "said": word} for claim, word in zip("abc", words, strict=True)]
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(json.dumps({"findings": rows}))
    verdicts.table(paths)
    out = capsys.readouterr().out
    assert "| a | holds | holds | fails |" in out
    assert "| b | fails | in part | fails |" in out
    assert "2 of 6 pairs of verdicts agree (33%); 2 are opposite" in out
