"""Blind studies: win rates, agreement, and the answers on disk."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from messages import refused, warned
from scipy import stats

from interp.analysis import study
from interp.base.errors import InputError, InterpWarning, PlanError, StoreError
from interp.store.answers import Study, append_answer, read_answers, read_study, study_file, study_names, write_study

NAN = np.nan


def test_agreement_is_krippendorffs_own_example() -> None:
    """Krippendorff (2011), section C: four observers, twelve units, missing data; nominal alpha 0.743."""
    values = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
            [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
        ]
    )
    assert study.krippendorff(values) == pytest.approx(0.743, abs=5e-4)


def test_agreement_at_its_ends() -> None:
    rng = np.random.default_rng(0)
    same = np.tile(rng.choice([0.0, 0.5, 1.0], 50), (3, 1))
    assert study.krippendorff(same) == 1
    assert abs(study.krippendorff(rng.choice([0.0, 0.5, 1.0], (4, 2000)))) < 0.05
    assert np.isnan(study.krippendorff(np.array([[1.0, NAN], [NAN, 0.0]]))), "no pair has two raters"


def test_equal_raters_give_students_interval() -> None:
    values = np.random.default_rng(1).choice([0.0, 0.5, 1.0], (6, 40))
    mean, low, high = study.clustered_mean(values)
    each = values.mean(axis=1)
    expected = stats.t.interval(0.95, 5, each.mean(), each.std(ddof=1) / np.sqrt(6))
    assert (mean, low, high) == pytest.approx((each.mean(), *expected))


def test_intervals_cover_although_raters_differ() -> None:
    """Raters with tastes of their own: intervals over raters cover the truth; intervals over answers would not."""
    rng = np.random.default_rng(2)
    covered = naive = 0
    for _ in range(400):
        taste = np.clip(rng.normal(0.6, 0.15, (10, 1)), 0, 1)
        values = (rng.random((10, 30)) < taste).astype(float)
        mean, low, high = study.clustered_mean(values)
        error = 1.96 * values.std() / np.sqrt(values.size)
        covered, naive = covered + (low <= 0.6 <= high), naive + (abs(mean - 0.6) <= error)
    assert covered / 400 > 0.91
    assert naive / 400 < 0.85


def test_one_rater_has_no_interval() -> None:
    answers = [{"rater": "a", "pair": n, "detail": "first", "colour": "tie", "prompt": "second"} for n in range(3)]
    found = study.win_rates(answers)
    assert found["win"].to_numpy().tolist() == [1, 0.5, 0]
    assert found["win_low"].isnull().all()
    assert found.attrs["interval"] == "none: one rater"
    assert found.attrs["answers"] == 3


def test_a_later_answer_replaces_an_earlier_one() -> None:
    first = {"rater": "a", "pair": 1, "detail": "first", "colour": "first", "prompt": "first"}
    found = study.win_rates([first, {**first, "detail": "second"}])
    assert found["win"].sel(question="detail") == 0
    with refused(InputError, "answer.detail", "left", "first", "tie", "second"):
        study.win_rates([{**first, "detail": "left"}])


def test_the_order_is_each_raters_own_and_balanced() -> None:
    rows = list(range(40))
    one, again, other = study.order("s", "a", rows), study.order("s", "a", rows), study.order("s", "b", rows)
    assert one == again
    assert one != other
    assert sorted(row for row, _ in one) == rows
    assert sum(left for _, left in one) == 20


def _answer(arguments: tuple[Path, int]) -> None:
    path, rater = arguments
    for pair in range(25):
        append_answer(path, {"rater": str(rater), "pair": pair, "detail": "tie", "colour": "tie", "prompt": "tie"})


def _are_all_there(path: Path) -> bool:
    found = read_answers(path)
    expected = sorted((str(rater), pair) for rater in range(3) for pair in range(25))
    return sorted((answer["rater"], answer["pair"]) for answer in found) == expected


def test_answers_of_many_threads_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "studies" / "s.jsonl"
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(_answer, [(path, rater) for rater in range(3)]))
    assert _are_all_there(path)


@pytest.mark.processes
def test_answers_of_many_processes_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "studies" / "s.jsonl"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(_answer, [(path, rater) for rater in range(3)])
    assert _are_all_there(path)


def test_a_line_cut_short_costs_that_line_alone(tmp_path: Path) -> None:
    path, whole = tmp_path / "s.jsonl", {"rater": "a", "detail": "tie", "colour": "tie", "prompt": "tie"}
    append_answer(path, {**whole, "pair": 0})
    with path.open("ab") as file:
        file.write(b'{"rater": "a", "pa')
    append_answer(path, {"rater": "no questions"})
    append_answer(path, {**whole, "pair": 2})
    with warned(InterpWarning, 2, "answers"):
        found = read_answers(path)
    assert [answer["pair"] for answer in found] == [0, 2]


def test_a_study_is_kept_and_guarded(tmp_path: Path) -> None:
    one = Study("sweep.zarr", 0, 2, "none", "dg:1", (0, 1, 2))
    path = write_study(tmp_path, "detail", one)
    assert read_study(path) == one
    assert write_study(tmp_path, "detail", one) == path
    (path.parent / "my notes.json").write_text("{}")
    assert study_names(tmp_path) == ["detail"]
    with refused(PlanError, "detail"):
        write_study(tmp_path, "detail", Study("sweep.zarr", 0, 1, "none", "cfg:2", (0,)))
    for name in ("../up", "a/b", "", ".hidden", "x" * 80):
        with refused(InputError, "study", "name"):
            study_file(tmp_path, name)
    with refused(InputError, "second", "first", "'a'"):
        Study("sweep.zarr", 1, 1, "a", "a", (0,))
    path.write_text("{}")
    with refused(StoreError, "detail.json"):
        read_study(path)
