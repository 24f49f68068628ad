"""Intervals of means over prompts: closed forms, coverage, and what has none."""

from __future__ import annotations

import numpy as np
import pytest
from messages import names
from scipy import stats

from interp.analysis import intervals, trend
from interp.analysis.intervals import Sampled
from interp.analysis.result import Estimate
from interp.store.schema import Array

DRAWS = 2000  # of 95% intervals: the share that covers is within 0.015 of its mean


def grid(texts: int, seeds: int) -> Sampled:
    """Every text with the same seeds, row by row."""
    return Sampled([f"text {t}" for t in range(texts) for _ in range(seeds)], list(range(seeds)) * texts)


def own(texts: int, seeds: int) -> Sampled:
    """As many rows, every one with noise of its own."""
    return Sampled([f"text {t}" for t in range(texts) for _ in range(seeds)], list(range(texts * seeds)))


def covered(found: tuple[Array, Array], truth: float) -> float:
    assert (found[0] <= found[1]).all()
    return float(((found[0] <= truth) & (truth <= found[1])).mean())


# one-way


def test_of_many_values_it_is_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, (400, 2))
    low, high = intervals.interval(values, Sampled.single(400))
    half = 1.96 * values.std(axis=0) / 20
    np.testing.assert_allclose(low, values.mean(axis=0) - half, atol=0.02)
    np.testing.assert_allclose(high, values.mean(axis=0) + half, atol=0.02)
    again = intervals.interval(values, Sampled.single(400))
    np.testing.assert_array_equal(again[0], low)


@pytest.mark.parametrize("count", [4, 9, 30])
def test_of_symmetric_values_it_is_a_t_interval(count: int) -> None:
    values = np.linspace(-1.0, 1.0, count) + 5.0
    low, high = intervals.interval(values, Sampled.single(count))
    degrees = 2 * count / (1 + 2 * count / (count - 1))  # of a variance of values of excess kurtosis 1
    half = stats.t.ppf(0.975, degrees) * values.std(ddof=1) / np.sqrt(count)
    np.testing.assert_allclose([low, high], [5 - half, 5 + half], atol=2e-3 * half)


def test_the_bounds_are_where_halls_cubic_reaches_t() -> None:
    """g(s) = s + c s^2 / 3 + c^2 s^3 / 27 + c / (6 n) of s = (mean - bound) / deviation (Hall 1992), c the skewness."""
    values = np.random.default_rng(0).exponential(size=12)
    low, high = intervals.interval(values, Sampled.single(12))
    skewness, degrees = stats.skew(values, bias=False), 24 / (1 + 24 / 11)
    for bound, sign in ((low, 1), (high, -1)):
        s = (values.mean() - bound) / values.std(ddof=1)
        g = s + skewness * s**2 / 3 + skewness**2 * s**3 / 27 + skewness / 72
        assert g * np.sqrt(12) == pytest.approx(sign * stats.t.ppf(0.975, degrees))
    assert high - values.mean() > values.mean() - low, "the longer tail is above"


@pytest.mark.parametrize(("count", "least"), [(4, 0.93), (8, 0.93), (24, 0.93)])
def test_means_of_normal_values_are_covered(count: int, least: float) -> None:
    values = np.random.default_rng(count).normal(size=(count, DRAWS))
    assert least <= covered(intervals.interval(values, Sampled.single(count)), 0.0) <= 0.985


def test_means_of_skewed_values_are_covered_better_than_by_t() -> None:
    values = np.random.default_rng(1).exponential(size=(16, DRAWS))
    hall = covered(intervals.interval(values, Sampled.single(16)), 1.0)
    half = stats.t.ppf(0.975, 15) * values.std(axis=0, ddof=1) / 4
    student = covered((values.mean(axis=0) - half, values.mean(axis=0) + half), 1.0)
    assert 0.925 <= hall <= 0.985
    assert hall > student + 0.01


def test_correlations_and_ratios_are_covered() -> None:
    """Jackknifed functions of means of 24 normal and lognormal samples."""
    draw = np.random.default_rng(1)
    x = draw.normal(size=(24, DRAWS, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])  # correlation 0.6
    one, other = np.moveaxis(x, -1, 0)
    moments = np.stack([one, other, one**2, other**2, one * other], axis=1)

    def correlation(m: Array) -> Array:
        cov = m[:, 4] - m[:, 0] * m[:, 1]
        return np.asarray(cov / np.sqrt((m[:, 2] - m[:, 0] ** 2) * (m[:, 3] - m[:, 1] ** 2)))

    found = intervals.interval(moments, Sampled.single(24), correlation, scale="correlation")
    assert 0.92 <= covered(found, 0.6) <= 0.985
    assert (found[0] > -1).all()
    assert (found[1] < 1).all()
    pair = np.exp(draw.normal([1.0, 0.0], 0.5, size=(24, DRAWS, 2)))
    found = intervals.interval(np.moveaxis(pair, -1, 1), Sampled.single(24), lambda m: m[:, 0] / m[:, 1], scale="ratio")
    assert 0.92 <= covered(found, np.e) <= 0.985
    assert (found[0] > 0).all()


@pytest.mark.parametrize("spread", [0.05, 0.4])
def test_the_variation_of_lognormal_sizes_is_covered(spread: float) -> None:
    sizes = np.exp(np.random.default_rng(2).normal(1.0, spread, size=(16, DRAWS)))
    found, truth = trend.variation(sizes, Sampled.single(16)), np.sqrt(np.exp(spread**2) - 1)
    np.testing.assert_allclose(found.value, np.sqrt(np.exp(np.log(sizes).var(axis=0, ddof=1)) - 1))
    assert np.median(found.value) == pytest.approx(truth, rel=0.05)
    assert 0.92 <= covered((found.low, found.high), truth) <= 0.985


def test_a_lower_level_lies_within() -> None:
    values = np.random.default_rng(3).normal(size=(10, 50))
    for units in (Sampled.single(10), grid(5, 2)):
        wide = intervals.interval(values, units, level=0.95)
        narrow = intervals.interval(values, units, level=0.9)
        if units.shared:
            assert np.isnan(wide).all()
            continue
        assert (wide[0] < narrow[0]).all()
        assert (narrow[1] < wide[1]).all()


def test_values_that_are_all_equal_have_an_interval_of_no_width() -> None:
    low, high = intervals.interval(np.full((6, 3), 2.5), Sampled.single(6))
    np.testing.assert_array_equal([low, high], np.full((2, 3), 2.5))


# rows, texts, seeds


def test_rows_of_a_text_with_noise_of_its_own_are_averaged_first() -> None:
    values = np.random.default_rng(4).normal(size=(20, 3))
    found = intervals.interval(values, own(5, 4))
    means = values.reshape(5, 4, 3).mean(axis=1)
    np.testing.assert_allclose(found, intervals.interval(means, Sampled.single(5)))
    np.testing.assert_allclose(intervals.mean_of_texts(values, own(5, 4)), means.mean(axis=0))
    uneven = Sampled(["a", "b", "a", "a", "c", "d"], range(6))
    assert intervals.mean_of_texts(np.array([3.0, 1, 0, 0, 5, 7]), uneven) == pytest.approx((1 + 1 + 5 + 7) / 4)


def test_case_and_spaces_make_no_other_prompt() -> None:
    units = Sampled(["a cat", "A  cat ", "a dog", "b"], [1, 2, 3, 4])
    assert units.prompts == 3
    assert not units.enough
    assert units.shared == 0


def test_seeds_are_shared_where_texts_have_the_same() -> None:
    assert grid(5, 3).shared == 3
    assert own(5, 3).shared == 0
    assert Sampled(["a", "a", "b"], [0, 1, 2]).shared == 0
    assert Sampled(["a", "a", "b"], [0, 1, 1]).shared == 2
    assert Sampled(["a", "A", "a"], [0, 0, 1]).shared == 0, "one text"
    assert Sampled.single(7).shared == 0


@pytest.mark.parametrize(
    ("units", "words"),
    [
        (own(1, 8), ("none", "one")),
        (own(2, 8), ("none", 4)),
        (own(3, 8), ("none", 4)),
        (grid(3, 8), ("none", 4)),
        (grid(12, 1), ("none", "1 seed", "--seeds own", "4 repeats")),
        (grid(12, 3), ("none", "3 seeds", "--seeds own", "4 repeats")),
    ],
)
def test_too_few_have_no_interval(units: Sampled, words: tuple[object, ...]) -> None:
    values = np.random.default_rng(0).random((len(units.texts), 2))
    for found in (
        Estimate.mean(values, units),
        Estimate.share(values, units),
        Estimate.of_mean(values, units, np.exp, "ratio"),
    ):
        assert np.isfinite(found.value).all()
        assert np.isnan(found.low).all()
        assert np.isnan(found.high).all()
    assert np.isnan(intervals.p_of_zero(values, units)).all()
    assert not names(units.said(), *words)


@pytest.mark.parametrize(
    ("units", "words"),
    [(own(4, 1), ("95%", "Hall's t", "4 prompt texts")), (grid(4, 4), ("95%", "4 prompt texts", "4 seeds", "two-way"))],
)
def test_the_fewest_have_one_and_say_so(units: Sampled, words: tuple[object, ...]) -> None:
    values = np.random.default_rng(0).random((len(units.texts), 2))
    for found in (
        Estimate.mean(values, units),
        Estimate.share(values, units),
        Estimate.of_mean(values, units, np.exp, "ratio"),
    ):
        assert (found.low < found.value).all()
        assert (found.value < found.high).all()
    assert not names(units.said(), *words)


def test_nothing_has_no_value() -> None:
    found = Estimate.mean(np.zeros((0, 2)), Sampled([], []))
    assert np.isnan([found.value, found.low, found.high]).all()


# two-way


def test_shared_noise_is_covered_and_own_noise_would_not_be() -> None:
    """Ten texts and six seeds, of which the seeds' effects are the larger ones."""
    draw = np.random.default_rng(5)
    of_texts, of_seeds = draw.normal(size=(10, 1, DRAWS)), 1.5 * draw.normal(size=(1, 6, DRAWS))
    values = (of_texts + of_seeds + draw.normal(size=(10, 6, DRAWS))).reshape(60, DRAWS)
    assert 0.925 <= covered(intervals.interval(values, grid(10, 6)), 0.0) <= 0.99
    assert covered(intervals.interval(values, own(10, 6)), 0.0) < 0.8


@pytest.mark.parametrize(("of_texts", "of_seeds"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_one_source_of_variance_is_covered(of_texts: float, of_seeds: float) -> None:
    draw = np.random.default_rng(6)
    sources = of_texts * draw.normal(size=(8, 1, DRAWS)) + of_seeds * draw.normal(size=(1, 6, DRAWS))
    values = (sources + 0.5 * draw.normal(size=(8, 6, DRAWS))).reshape(48, DRAWS)
    assert covered(intervals.interval(values, grid(8, 6)), 0.0) >= 0.925


def test_without_noise_of_its_own_a_row_adds_no_variance() -> None:
    """Effects of texts and seeds that add up: the variance of the mean is that of both means."""
    draw = np.random.default_rng(7)
    a, b = draw.normal(size=8), draw.normal(size=6)
    values = (a[:, None] + b).ravel()
    low, high = intervals.interval(values, grid(8, 6))
    of_texts, of_seeds = a.var(ddof=1) / 8, b.var(ddof=1) / 6
    freedom = [2 * n / (2 + 2 * n / (n - 1)) for n in (8, 6)]  # of variances of values of excess kurtosis 2
    degrees = (of_texts + of_seeds) ** 2 / (of_texts**2 / freedom[0] + of_seeds**2 / freedom[1])
    error = np.sqrt(of_texts + of_seeds)
    skewness = (stats.kstat(a, 3) / 8**2 + stats.kstat(b, 3) / 6**2) / error**3  # third cumulants of means add up
    t = (values.mean() - np.array([low, high])) / error
    cubic = t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6
    np.testing.assert_allclose(cubic, stats.t.ppf([0.975, 0.025], degrees), rtol=0.02)


def test_p_is_below_a_twentieth_where_the_interval_leaves_zero() -> None:
    values = np.random.default_rng(8).normal(0.6, 1.0, size=(30, 400))
    units = grid(6, 5)
    low, high = intervals.interval(values, units)
    p = intervals.p_of_zero(values, units)
    np.testing.assert_array_equal(p < 0.05, (low > 0) | (high < 0))
    assert 0.05 < (p < 0.05).mean() < 0.95


# shares


@pytest.mark.parametrize(("wins", "count"), [(0, 6), (1, 8), (5, 12), (12, 12)])
def test_shares_of_wins_have_wilsons_interval(wins: int, count: int) -> None:
    values = np.array([1.0] * wins + [0.0] * (count - wins))
    low, high = intervals.proportion(values, Sampled.single(count))
    expected = stats.binomtest(wins, count).proportion_ci(method="wilson")
    np.testing.assert_allclose([low, high], [expected.low, expected.high], atol=1e-9)


def test_shares_of_wins_are_covered() -> None:
    """Every text has a probability of its own; also where texts share seeds that move it."""
    draw = np.random.default_rng(9)
    chance = draw.beta(4, 2, size=(14, 1, DRAWS))
    values = (draw.random((14, 5, DRAWS)) < chance).reshape(70, DRAWS).astype(float)
    assert 0.925 <= covered(intervals.proportion(values, own(14, 5)), 4 / 6) <= 0.99
    pushed = np.clip(chance + draw.choice([-0.15, 0.15], size=(1, 5, DRAWS)), 0, 1)
    values = (draw.random((14, 5, DRAWS)) < pushed).reshape(70, DRAWS).astype(float)
    low, high = intervals.proportion(values, grid(14, 5))
    assert covered((low, high), float(values.mean())) >= 0.925
    assert (low >= 0).all()
    assert (high <= 1).all()


# resamples


def test_resamples_draw_texts_and_shared_seeds() -> None:
    weights = intervals.resamples_of(own(5, 3), 400)
    assert weights.shape == (400, 15)
    np.testing.assert_array_equal(weights.sum(axis=1), 15)
    by_text = weights.reshape(400, 5, 3)
    assert (by_text == by_text[:, :, :1]).all(), "the rows of a text are drawn together"
    crossed = intervals.resamples_of(grid(5, 3), 400).reshape(-1, 5, 3)
    texts, seeds = crossed.max(axis=2), crossed.max(axis=1)
    product = texts[:, :, None] * seeds[:, None]
    np.testing.assert_allclose(
        crossed / crossed.max(axis=(1, 2), keepdims=True), product / product.max(axis=(1, 2), keepdims=True)
    )
    np.testing.assert_array_equal(intervals.resamples_of(own(5, 3), 400), weights)
    values = np.random.default_rng(0).normal(size=(15, 2))
    by_hand = (weights[7] @ values) / weights[7].sum()
    np.testing.assert_allclose(intervals.means(weights, values, own(5, 3))[7], by_hand)
