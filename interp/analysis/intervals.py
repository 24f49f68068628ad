"""Intervals of means over prompts and of functions of them, and their descriptions in results.

Rows are samples of prompts and of noise. Where every prompt has noise of its own, prompts are the units. Where prompts share
their noise (`--seeds shared`), both are: the interval is two-way, and needs several seeds. Coverages: docs/statistics.md.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import special, stats

from interp.analysis.sampled import LEVEL, Sampled, alike
from interp.store.schema import Array

RESAMPLES = 500
TINY = 1e-12
KURTOSIS = {"one": 1.0, "two": 2.0}
"""Excess kurtosis that the degrees of freedom allow for, in one-way and two-way intervals: 0 is normal, 6 exponential."""
Function = Callable[[Array], Array]
"""Of (sample, ...) means over prompts: (sample, ...)."""

SCALES: dict[str, tuple[Function, Function]] = {
    "plain": (lambda value: value, lambda value: value),
    "share": (lambda share: special.logit(np.clip(share, TINY, 1 - TINY)), special.expit),
    "ratio": (lambda ratio: np.log(np.maximum(ratio, TINY)), np.exp),
    "correlation": (lambda r: np.arctanh(np.clip(r, TINY - 1, 1 - TINY)), np.tanh),
}


def interval(
    values: Array,
    units: Sampled,
    function: Function | None = None,
    *,
    scale: str = "plain",
    level: float = LEVEL,
    rough: bool = False,
) -> tuple[Array, Array]:
    """(low, high) of a function of the mean over texts of (row, ...) values, jackknifed; NaN where there are too few units.

    A `rough` function, such as of ranks, is jackknifed by pairs of a few groups of texts: one text at a time moves it by jumps.

    Hall's transformed t (J. R. Stat. Soc. B 54, 1992), which allows for skewness. Where texts share seeds, two-way: on the
    variance over texts plus over seeds less over rows (Cameron, Gelbach and Miller 2011).
    """
    forward, backward = SCALES[scale]
    apply = (lambda mean: mean) if function is None else function
    estimate = forward(apply(mean_of_texts(values, units)[None])[0])
    if not units.enough:
        return np.full(np.shape(estimate), np.nan), np.full(np.shape(estimate), np.nan)
    if function is None and scale == "plain" and not units.shared:
        pseudo = [by_text(values, units)]
    else:
        of = lambda mean: forward(apply(mean))  # noqa: E731
        first, *others = units.groups(rough)
        pseudo = [(_without_two if rough else _pseudo)(values, units, first, estimate, of)]
        pseudo += [_pseudo(values, units, groups, estimate, of) for groups in others]
    low, high = from_pseudo(estimate, pseudo, level)
    return np.asarray(backward(low)), np.asarray(backward(high))


def from_pseudo(estimate: Array, pseudo: Sequence[Array], level: float = LEVEL) -> tuple[Array, Array]:
    """The interval from pseudo-values of texts, or of texts, of seeds and of groups of rows: (group, ...) each; by Hall's cubic
    transformation of t.
    """
    error, skewness, degrees = _moments(pseudo)
    t = stats.t.ppf(0.5 + level / 2, degrees)

    def inverse(t: Array) -> Array:
        return np.asarray(3 / skewness * (np.cbrt(1 + skewness * (t - skewness / 6)) - 1))

    bounds = estimate - inverse(t) * error, estimate - inverse(-t) * error
    return np.minimum(bounds[0], estimate), np.maximum(bounds[1], estimate)


def _moments(pseudo: Sequence[Array]) -> tuple[Array, Array, Array]:
    """Standard error, skewness and degrees of freedom of an estimate, from pseudo-values as `from_pseudo` takes them."""
    variance, degrees = variance_of(pseudo)
    if len(pseudo) == 1:
        degrees = np.asarray(freedom(len(pseudo[0]), KURTOSIS["one"]))
    error = np.sqrt(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        skewness = sum(_third(one) for one in pseudo[:2]) / error**3
    least = TINY**0.25
    return error, np.where(np.abs(skewness) > least, skewness, least), degrees  # of equal values NaN: their error is 0


def _third(pseudo: Array) -> Array:
    """The third cumulant of the mean of independent values, (group, ...)."""
    count = len(pseudo)
    return np.asarray(((pseudo - pseudo.mean(axis=0)) ** 3).sum(axis=0) / ((count - 1) * (count - 2) * count))


def by_text(values: Array, units: Sampled) -> Array:
    """Each text's mean over its rows: (text, ...)."""
    return np.stack([values[rows].mean(axis=0) for rows in alike(units.texts)])


def mean_of_texts(values: Array, units: Sampled) -> Array:
    """The mean over texts of each text's mean over its rows."""
    return np.asarray(by_text(values, units).mean(axis=0))


def _pseudo(values: Array, units: Sampled, groups: list[Array], estimate: Array, function: Function) -> Array:
    """Jackknife pseudo-values: n estimate - (n - 1) estimate without a group, (group, ...)."""
    kept = np.ones((len(groups), len(values)))
    for number, group in enumerate(groups):
        kept[number, group] = 0
    left_out = function(means(kept, values, units))
    return np.asarray(len(groups) * estimate - (len(groups) - 1) * left_out)


def _without_two(values: Array, units: Sampled, groups: list[Array], estimate: Array, function: Function) -> Array:
    def of(chosen: Array) -> Array:
        kept = np.zeros((len(chosen), len(values)))
        for number, group in enumerate(groups):
            kept[:, group] = chosen[:, [number]]
        return function(means(kept, values, units))

    return without_two(len(groups), estimate, of)


def without_two(count: int, estimate: Array, function: Function) -> Array:
    """Pseudo-values, (group, ...), from the estimates without two of `count` groups, which `function` gives of (sample, group)
    booleans: estimate + k (n - 1) / n (mean of those with the group - mean of those without it), where k = n - 2.

    For a mean they are the jackknife's; of a rough function they average out jumps.
    """
    chosen = np.array([[n not in pair for n in range(count)] for pair in itertools.combinations(range(count), 2)])
    found = function(chosen)
    inside, outside = (np.stack([found[own].mean(axis=0) for own in which.T]) for which in (chosen, ~chosen))
    return np.asarray(estimate + (count - 2) * (count - 1) / count * (inside - outside))


def means(weights: Array, values: Array, units: Sampled) -> Array:
    """The mean over texts of their means over rows, of each line of (sample, row) weights: (sample, ...)."""
    texts = np.unique(np.array(units.texts, dtype=str), return_inverse=True)[1]
    member = np.eye(texts.max() + 1)[texts]  # (row, text)
    rows = (weights > 0) @ member
    weights = weights / np.maximum(rows, 1)[:, texts]
    weights = weights / weights.sum(axis=1, keepdims=True)
    return np.asarray((weights @ values.reshape(len(values), -1)).reshape(len(weights), *values.shape[1:]))


def freedom(count: int, kurtosis: float = 0.0) -> float:
    """Degrees of freedom of a variance from `count` values: those of the chi-squared of equal variance (Satterthwaite 1946)."""
    return 2.0 * count / (kurtosis + 2.0 * count / (count - 1))


def variance_of(pseudo: Sequence[Array]) -> tuple[Array, Array]:
    """Variance of an estimate and its degrees of freedom (Satterthwaite's), from pseudo-values as `from_pseudo` takes them."""
    parts = [one.var(axis=0, ddof=1) / len(one) for one in pseudo]
    if len(parts) == 1:
        return parts[0], np.full(np.shape(parts[0]), freedom(len(pseudo[0])))
    texts, seeds = len(pseudo[0]), len(pseudo[1])
    of_texts, of_seeds, of_rows = parts
    # of_rows holds the variance between texts and between seeds too, over as many rows
    rest = (of_rows - of_texts / seeds - of_seeds / texts) / (1 - 1 / texts - 1 / seeds)
    both = np.clip(rest, 0, np.minimum(of_texts, of_seeds))  # counted twice: taken from the smaller part
    variance = np.asarray(of_texts + of_seeds - both)
    less = of_texts < of_seeds
    squares = np.where(less, of_texts - both, of_texts) ** 2 / freedom(texts, KURTOSIS["two"])
    squares = squares + np.where(less, of_seeds, of_seeds - both) ** 2 / freedom(seeds, KURTOSIS["two"])
    return variance, np.maximum(np.divide(variance**2, squares, out=np.ones_like(variance), where=squares > 0), 1.0)


def p_of_zero(values: Array, units: Sampled) -> Array:
    """Two-sided p of the mean over texts of (row, ...) values that share seeds: below 0.05 where the interval leaves 0."""
    mean = mean_of_texts(values, units)
    if not units.enough:
        return np.full(np.shape(mean), np.nan)
    error, skewness, degrees = _moments([_pseudo(values, units, groups, mean, lambda one: one) for groups in units.groups()])
    with np.errstate(divide="ignore", invalid="ignore"):
        t = mean / error
        return np.asarray(2 * stats.t.sf(np.abs(t + skewness * (t**2 / 3 + 1 / 6) + skewness**2 * t**3 / 27), degrees))


def proportion(values: Array, units: Sampled, *, level: float = LEVEL) -> tuple[Array, Array]:
    """Wilson's interval (1927) of a mean of shares in 0..1, (row, ...), such as wins. Its number of samples is the one that
    would give the variance of the mean; where that is more than the texts, with Student's t, as the variance is estimated.
    """
    mean, count = mean_of_texts(values, units), units.prompts
    if not units.enough:
        return np.full(np.shape(mean), np.nan), np.full(np.shape(mean), np.nan)
    variance, degrees = variance_of([_pseudo(values, units, groups, mean, lambda one: one) for groups in units.groups()])
    of_one = mean * (1 - mean)
    samples = np.divide(of_one, variance, out=np.full(np.shape(mean), float(count)), where=variance > 0)
    samples = np.clip(samples, min(count, units.shared or count), max(len(values), 4 * count))
    estimated = (samples > count) | (units.shared > 0)
    z = np.where(estimated, stats.t.ppf(0.5 + level / 2, degrees), stats.norm.ppf(0.5 + level / 2))
    centre = (mean + z**2 / (2 * samples)) / (1 + z**2 / samples)
    reach = z / (1 + z**2 / samples) * np.sqrt(of_one / samples + z**2 / (4 * samples**2))
    return np.asarray(centre - reach), np.asarray(centre + reach)


def resamples_of(units: Sampled, count: int, seed: int = 0) -> Array:
    """Bootstrap weights of the rows, (sample, row): of the texts, times those of the seeds that texts share (Owen 2007)."""
    draw, weights = np.random.default_rng(seed), np.ones((count, len(units.texts)))
    for group in units.groups()[:2]:
        times = draw.multinomial(len(group), np.full(len(group), 1 / len(group)), size=count)
        for number, rows in enumerate(group):
            weights[:, rows] *= times[:, [number]]
    return weights[weights.any(axis=1)]


def everywhere(work: Callable[[tuple[int, ...]], None], shape: tuple[int, ...]) -> None:
    """`work(place)` for every place of an array; in threads, since places are independent."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, np.ndindex(*shape)))
