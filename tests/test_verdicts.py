"""Paired comparisons of settings: p, corrections, and verdicts that no interval contradicts."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import xarray as xr

from interp.analysis import paired
from interp.store.schema import Array


def scores(values: Array) -> object:
    names = ["none", *(f"s{number}" for number in range(values.shape[0] - 1))]
    measures = [f"m{number}" for number in range(values.shape[1])]
    return xr.DataArray(values, {"setting": names, "measure": measures}, ("setting", "measure", "prompt"))


def table(values: Any) -> xr.DataArray:
    """(setting, measure, prompt) scores by name."""
    values = np.asarray(values, float)
    names = [[f"{letter}{n}" for n in range(size)] for letter, size in zip("smp", values.shape, strict=True)]
    return xr.DataArray(
        values, dict(zip(("setting", "measure", "prompt"), names, strict=True)), ("setting", "measure", "prompt")
    )


def test_p_is_that_of_all_signs() -> None:
    values = np.zeros((2, 1, 7))
    values[1, 0] = [0.3, -0.1, 0.4, 0.2, 0.5, -0.05, 0.1]
    found = paired.compare(scores(values))
    means = [abs((np.array(signs) * values[1, 0]).mean()) for signs in itertools.product((1, -1), repeat=7)]
    exact = np.mean(np.array(means) >= abs(values[1, 0].mean()) - 1e-12)
    assert float(found["p"][1, 0]) == pytest.approx(exact, abs=1e-9)
    assert float(found["effect"][1, 0]) == pytest.approx(values[1, 0].mean() / values[1, 0].std(ddof=1))
    assert float(found["win"][1, 0]) == pytest.approx(5 / 7)
    assert np.isnan(found["p"][0, 0])
    assert str(found["verdict"][0, 0].values) == "the baseline"


def test_holm_by_hand() -> None:
    found = paired.holm(np.array([0.01, np.nan, 0.04, 0.03]))
    assert found == pytest.approx([0.03, np.nan, 0.06, 0.06], nan_ok=True)


@pytest.mark.parametrize("repeats", [40, pytest.param(200, marks=pytest.mark.full)])
def test_no_difference_is_called_one_in_a_twentieth(repeats: int) -> None:
    """At 5%, 24 or more of 200 are called by chance once in 10,000 seeds, 8 or more of 40 once in 1000; the seed is fixed."""
    draw = np.random.default_rng(5)
    called = 0
    for _ in range(repeats):
        values = draw.normal(0, 1, (2, 1, 30))
        called += str(paired.compare(scores(values))["verdict"][1, 0].values) in ("better", "worse")
    assert called <= max(0.12 * repeats, 7)


def test_a_verdict_agrees_with_its_interval() -> None:
    """A difference is found; a small one is called small, with a margin; many comparisons are corrected."""
    draw = np.random.default_rng(5)
    base = draw.normal(0, 1, 60)
    values = np.stack([base, base + draw.normal(0.8, 0.5, 60), base + draw.normal(0, 0.02, 60)])[:, None]
    found = paired.compare(scores(values), margin=0.2)
    assert [str(v) for v in found["verdict"][:, 0].to_numpy()] == [
        "the baseline",
        "better",
        "no different, by more than the margin",
    ]
    worse = paired.compare(scores(values), lower_is_better=["m0"])
    assert str(worse["verdict"][1, 0].values) == "worse"
    assert float(worse["win"][1, 0]) < 0.1
    crowd = np.concatenate([np.zeros((1, 1, 30)), draw.normal(0, 1, (40, 1, 30))])
    crowd[1] += 0.45
    lonely = paired.compare(scores(crowd))
    corrected = lonely["p_holm"][:, 0].to_numpy()
    for number, verdict in enumerate(str(v) for v in lonely["verdict"][:, 0].to_numpy()):
        assert (verdict in ("better", "worse")) == (corrected[number] <= 0.05)
    assert any("not after correction" in str(v) for v in lonely["verdict"][:, 0].to_numpy()), "of forty, some look so by chance"
    few = paired.compare(scores(values[:, :, :1]))
    assert str(few["verdict"][1, 0].values) == "cannot tell: too few prompts"


@pytest.mark.parametrize("prompts", [2, 4, 5])
def test_few_prompts_never_say_better(prompts: int) -> None:
    """Under random signs the smallest p of five prompts is 0.0625: no interval of theirs is a finding."""
    found = paired.compare(table([np.zeros((1, prompts)), 1 + 0.01 * np.arange(prompts)[None]]))
    assert float(found["over_low"][1, 0]) > 0
    assert str(found["verdict"][1, 0].values) == "not shown"


def test_an_equivalence_that_is_withdrawn_leaves_the_direction() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0, 100, (1, 9))
    found = paired.compare(table([base, base + 1 + 0.01 * rng.normal(size=(1, 9))]), margin=0.2)
    assert str(found["verdict"][1, 0].values) == "better"


def test_one_correction_over_all_tables() -> None:
    """A comparison that stands in two tables has one p and one verdict, and counts once."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(3, 2, 12))
    values[1] += 0.8
    one, other = paired.compare(table(values)), paired.compare(table(values[:2]))
    tables = {name: found.assign_coords(prompt=[f"p{n}" for n in range(12)]) for name, found in (("a", one), ("b", other))}
    together = paired.correct_together(tables)
    np.testing.assert_array_equal(together["a"]["p_holm"][1], together["b"]["p_holm"][1])
    assert together["a"]["verdict"][1].to_numpy().tolist() == together["b"]["verdict"][1].to_numpy().tolist()
    np.testing.assert_allclose(together["a"]["p_holm"], paired.holm(one["p"].to_numpy()))
    assert "Holm over the 4 comparisons of all tables" in together["b"].attrs["p"]
    other_prompts = tables["b"].assign_coords(prompt=[f"q{n}" for n in range(12)])
    assert "6 comparisons" in paired.correct_together({"a": tables["a"], "b": other_prompts})["a"].attrs["p"]


def test_ties_few_prompts_and_gaps_prove_nothing() -> None:
    def said(values: list[list[float]]) -> str:
        scores = xr.DataArray(np.array(values)[:, None], dims=("setting", "measure", "prompt"))
        found = paired.compare(scores.assign_coords(setting=["a", "b"], measure=["m"]), margin=0.5)
        return str(found["verdict"].sel(setting="b", measure="m").values)

    own = list(np.arange(20.0))
    assert said([own, own]) == "not shown", "ties"
    near = [value + (-1) ** number * 0.01 for number, value in enumerate(own)]
    assert said([own, near]) == paired.EQUIVALENT
    assert said([own[:5], near[:5]]) == "not shown", "five prompts"
    assert said([own, [*near[:-1], float("nan")]]) == "cannot tell: not measured on 1 of 20 prompts"


@pytest.mark.parametrize("prompts", [4, 8, 20])
def test_a_permutation_p_counts_the_data_themselves(prompts: int) -> None:
    """All differences of one sign: two of 2^n signs where all are tried, and never 0 where signs are drawn."""
    found = paired._permutation_p(np.linspace(1.0, 2.0, prompts)[:, None])[0]
    if 2**prompts <= paired.PERMUTATIONS:
        assert found == pytest.approx(2 / 2**prompts)
    else:
        assert 1 / (paired.PERMUTATIONS + 1) <= found < 0.01
