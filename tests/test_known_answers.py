"""Short forms of tests/campaigns/planted.py and kinds.py: random plants are found and judged as planted, unplanted models
and rotated states raise no alarm.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "campaigns"))

import kinds
import planted


@pytest.mark.parametrize("family", planted.FAMILIES)
def test_a_random_plant_is_found(family: str) -> None:
    """From 8 prompts; with whole populations: below."""
    (verdict,) = planted.plants(family, 1, first_seed=500, traced=8)
    assert verdict.exact_set
    assert verdict.birth
    assert verdict.writer


@pytest.mark.full
@pytest.mark.parametrize("family", planted.FAMILIES)
def test_random_plants_are_found_in_whole_populations(family: str) -> None:
    verdicts = list(planted.plants(family, 2, first_seed=500))
    assert len(verdicts) == 2
    assert all(verdict.exact_set and verdict.birth and verdict.writer for verdict in verdicts)


@pytest.mark.parametrize(
    ("family", "count"),
    [("sd3", 1), *(pytest.param(family, 2, marks=pytest.mark.full) for family in planted.FAMILIES)],
)
def test_unplanted_models_raise_no_alarm(family: str, count: int) -> None:
    """Fixed seeds; over many, none of 60 models of a family raised one: a rate of 0 to 6% (docs/findings.md)."""
    assert list(planted.unplanted(family, count, first_seed=500)) == [False] * count


@pytest.mark.parametrize(
    ("prompts", "steps", "rotations"), [(2, 2, 3), pytest.param(8, None, 8, marks=pytest.mark.full)], ids=["short", "whole"]
)
def test_rotated_states_raise_no_alarm_where_the_states_themselves_do(
    prompts: int, steps: int | None, rotations: int, tmp_path: Path
) -> None:
    """Fixed seeds; over many, 1 of 65 rotations raised an alarm: two of three or of eight are rarer than 1 in 100."""
    states = planted.demo_states(tmp_path, prompts, steps)
    alarms = list(planted.rotated(states, rotations, first_seed=500))
    assert len(alarms) == rotations
    assert sum(alarms) <= 1
    assert planted.alarm(states)


def test_rates_have_exact_intervals() -> None:
    assert planted.rate([True] * 59 + [False]) == "59/60 = 0.983 [0.911, 1.000]"
    assert planted.rate([False] * 60) == "0/60 = 0.000 [0.000, 0.060]"


@pytest.mark.parametrize("name", ["tokens", "both", "two steps", "last block", "padding alone", "own text tokens"])
def test_kinds_of_massive_values_are_told_apart(name: str) -> None:
    """In one family; all of them, ten plants each: docs/findings.md."""
    assert kinds.right(name, "flux", 500)


@pytest.mark.full
@pytest.mark.parametrize(("name", "family"), [(name, family) for name, case in kinds.CASES.items() for family in case[0]])
def test_every_kind_in_every_family(name: str, family: str) -> None:
    assert kinds.right(name, family, 501)


@pytest.mark.long
@pytest.mark.parametrize("name", ["carrier", "bystander"])
def test_carriers_of_the_prompt_are_told_from_bystanders(name: str) -> None:
    assert kinds.right(name, "dit", 0)
