"""Paired comparisons of settings: p, corrections, and verdicts that no interval contradicts."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import xarray as xr

from interp.analysis import intervals, paired
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
    assert str(few["verdict"][1, 0].values) == "cannot tell: too few prompts, or shared seeds"


@pytest.mark.parametrize("prompts", [2, 3, 4, 5])
def test_few_prompts_never_say_better(prompts: int) -> None:
    """Under random signs the smallest p of five prompts is 0.0625: no interval of theirs is a finding. Below four: none."""
    found = paired.compare(table([np.zeros((1, prompts)), 1 + 0.01 * np.arange(prompts)[None]]))
    if prompts < 4:
        assert np.isnan(found[["over_low", "over_high", "low", "high", "win_low", "win_high"]].to_dataarray()).all()
        assert str(found["verdict"][1, 0].values) == "cannot tell: too few prompts, or shared seeds"
    else:
        assert float(found["over_low"][1, 0]) > 0
        assert str(found["verdict"][1, 0].values) == "not shown"


def with_rows(values: Array, texts: list[str], seeds: list[int]) -> xr.DataArray:
    """(setting, row) scores of one measure, with each row's prompt text and seed."""
    rows = {"prompt": np.arange(len(texts)), "prompt_text": ("prompt", texts), "seed": ("prompt", seeds)}
    return xr.DataArray(values[:, None], {"setting": ["a", "b"], "measure": ["m"], **rows}, ("setting", "measure", "prompt"))


def test_rows_of_a_text_with_seeds_of_their_own_are_averaged_first() -> None:
    draw = np.random.default_rng(1)
    values = draw.normal(size=(2, 12, 3)) + draw.normal(size=(1, 12, 1)) + np.array([0.0, 0.6])[:, None, None]
    texts = [f"text {t}" for t in range(12) for _ in range(3)]
    found = paired.compare(with_rows(values.reshape(2, 36), texts, list(range(36))), margin=0.3)
    averaged = paired.compare(table(values.mean(axis=2)[:, None]), margin=0.3)
    for name in ("value", "low", "high", "over", "over_low", "over_high", "p", "p_holm", "effect"):
        np.testing.assert_allclose(found[name], averaged[name], atol=1e-12, err_msg=name)
    assert found["verdict"].to_numpy().tolist() == averaged["verdict"].to_numpy().tolist()
    won = (values[1] > values[0]).mean(axis=1)
    assert float(found["win"].sel(setting="b", measure="m")) == pytest.approx(won.mean())


def test_rows_that_share_seeds_are_two_way_samples() -> None:
    """The seeds' part of a difference is no finding, however many prompts show it."""
    draw = np.random.default_rng(2)
    texts, seeds = [f"text {t}" for t in range(40) for _ in range(6)], list(range(6)) * 40
    by_seed = np.array([1.0, -0.6, 0.8, -0.4, 0.9, -0.2])  # of the difference
    own = draw.normal(size=(40, 6))
    values = np.stack([own, own + by_seed + 0.1 * draw.normal(size=(40, 6))]).reshape(2, 240)
    shared = paired.compare(with_rows(values, texts, seeds))
    assert str(shared["verdict"].sel(setting="b", measure="m").values) == "not shown"
    difference = (values[1] - values[0])[:, None]
    p = intervals.p_of_zero(difference, intervals.Sampled(texts, seeds))
    np.testing.assert_allclose(shared["p"].sel(setting="b"), p)
    assert "two-way" in shared.attrs["p"]
    as_own = paired.compare(with_rows(values, texts, list(range(240))))
    assert str(as_own["verdict"].sel(setting="b", measure="m").values) == "better"
    few = with_rows(values, texts, seeds).isel(prompt=np.flatnonzero(np.array(seeds) < 3))
    assert (
        str(paired.compare(few)["verdict"].sel(setting="b", measure="m").values)
        == "cannot tell: too few prompts, or shared seeds"
    )


def test_a_difference_that_is_shown_is_not_also_none() -> None:
    """Within the margin, and above 0: it is better; the same with as much noise that 0 is within, no different."""
    draw = np.random.default_rng(4)
    base = draw.normal(0, 10, 40)
    clear = paired.compare(table([[base], [base + 0.5 + draw.normal(0, 0.1, 40)]]), margin=0.2)
    noisy = paired.compare(table([[base], [base + draw.normal(0, 1.0, 40)]]), margin=0.2)
    assert str(clear["verdict"][1, 0].values) == "better"
    assert str(noisy["verdict"][1, 0].values) == paired.EQUIVALENT


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
    assert said([own[:5], near[:5]]) == paired.EQUIVALENT, "the interval of five prompts is as wide as it must be"
    assert said([own[:5], [value + (-1) ** number for number, value in enumerate(own[:5])]]) == "not shown"
    assert said([own[:3], near[:3]]) == "cannot tell: too few prompts, or shared seeds"
    assert said([own, [*near[:-1], float("nan")]]) == "cannot tell: not measured on 1 of 20 rows"


@pytest.mark.parametrize("prompts", [4, 8, 20])
def test_a_permutation_p_counts_the_data_themselves(prompts: int) -> None:
    """All differences of one sign: two of 2^n signs where all are tried, and never 0 where signs are drawn."""
    found = paired._permutation_p(np.linspace(1.0, 2.0, prompts)[:, None])[0]
    if 2**prompts <= paired.PERMUTATIONS:
        assert found == pytest.approx(2 / 2**prompts)
    else:
        assert 1 / (paired.PERMUTATIONS + 1) <= found < 0.01


def test_grain_added_is_not_detail_lost() -> None:
    """White noise on pictures makes their spectrum as wrong as a blur does, and is no loss of detail."""
    from scipy import ndimage

    from interp.analysis import disruption
    from interp.analysis.sampled import Sampled
    from interp.metrics import distances
    from interp.models.demo import world

    draw = np.random.default_rng(0)
    pictures = np.stack([scene.picture() for scene in world.sample(24, seed=5)]) / 255.0
    spectrum = distances.radial_spectrum(pictures)[1].mean(axis=0)
    noisy = (pictures + draw.normal(0, 0.15, pictures.shape)).clip(0, 1)
    blurred = ndimage.gaussian_filter(pictures, 1.0, axes=(1, 2))

    def said(changed: np.ndarray) -> str:
        own, theirs = (
            {"detail": distances.spectrum_distance(many, spectrum), "sharpness": distances.sharpness(many)}
            for many in (pictures, changed)
        )
        values = {name: (theirs[name] - own[name]) / own[name].std() for name in own}
        values["structure"] = distances.structure_distance(changed, pictures) / 0.35
        return disruption.outcome({name: (one, Sampled.single(24)) for name, one in values.items()}, 0.1)

    assert said(noisy) == "detail altered alone"
    assert said(blurred) == "detail lost alone (DG)"
