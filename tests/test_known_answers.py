"""The short form of tests/campaigns/planted.py: random plants are found, unplanted models and rotated states raise no alarm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "campaigns"))

import planted


@pytest.mark.parametrize("family", planted.FAMILIES)
def test_random_plants_are_found(family: str) -> None:
    verdicts = list(planted.plants(family, 2, first_seed=500))
    assert all(verdict.exact_set and verdict.birth and verdict.writer for verdict in verdicts)


@pytest.mark.parametrize("family", planted.FAMILIES)
def test_unplanted_models_raise_no_alarm(family: str) -> None:
    assert not any(planted.unplanted(family, 2, first_seed=500))


def test_rotated_states_raise_no_alarm_where_the_states_themselves_do(tmp_path: Path) -> None:
    states = planted.demo_states(tmp_path)
    assert sum(planted.rotated(states, 8, first_seed=500)) <= 1  # about one in a hundred does: docs/findings.md
    assert planted.alarm(states)


def test_rates_have_exact_intervals() -> None:
    assert planted.rate([True] * 59 + [False]) == "59/60 = 0.983 [0.911, 1.000]"
    assert planted.rate([False] * 60) == "0/60 = 0.000 [0.000, 0.060]"
