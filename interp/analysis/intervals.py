"""Intervals: the bootstrap over prompts, and what is said where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Array = NDArray[Any]
RESAMPLES = 500
LEVEL = 0.95
TINY = 1e-12
LARGEST = 20_000_000  # values in memory at once while resampling


def bootstrap(
    values: Array,
    function: Callable[[Array], Array] = lambda mean: mean,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[Array, Array]:
    """Percentile bootstrap over prompts of a function of the mean: (low, high), each of the function's shape.

    `values` is (prompt, ...); `function` maps (resample, ...) means to (resample, ...) results. With fewer than two prompts
    there is no interval: NaN.
    """
    prompts = values.shape[0]
    flat = values.reshape(prompts, -1)
    if prompts < 2:
        nothing = np.full(np.shape(function(values.mean(axis=0, keepdims=True))[0]), np.nan)
        return nothing, nothing.copy()

    def statistic(index: Array, axis: int = -1) -> Array:
        rows = np.atleast_2d(index)
        means = (_shares(rows, prompts) @ flat).reshape(len(rows), *values.shape[1:])
        result = np.moveaxis(function(means), 0, -1)
        return np.asarray(result if index.ndim > 1 else result[..., 0])

    found = stats.bootstrap(
        (np.arange(prompts),),
        statistic,
        n_resamples=resamples,
        batch=max(1, min(resamples, LARGEST // max(flat.shape[1], 1))),
        confidence_level=level,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return np.asarray(found.confidence_interval.low), np.asarray(found.confidence_interval.high)


def jackknife_share(values: Array, function: Callable[[Array], Array], *, level: float = LEVEL) -> tuple[Array, Array]:
    """Interval of a share (0..1) that a function of the mean over prompts gives: jackknife over prompts, on the logit scale.

    Shares of variance are skewed, and the percentile bootstrap covers them too seldom (docs/findings.md has the measured
    coverage of both). With fewer than three prompts there is no interval: NaN.
    """
    prompts = values.shape[0]
    estimate = function(values.mean(axis=0, keepdims=True))[0]
    if prompts < 3:
        nothing = np.full(np.shape(estimate), np.nan)
        return nothing, nothing.copy()
    left_out = (values.sum(axis=0, keepdims=True) - values) / (prompts - 1)
    return from_jackknife(estimate, function(left_out), level=level)


def from_jackknife(estimate: Array, left_out: Array, *, level: float = LEVEL) -> tuple[Array, Array]:
    """The same from the estimate and the estimates without each prompt, (prompt, ...)."""
    prompts = len(left_out)
    middle = special.logit(np.clip(estimate, TINY, 1 - TINY))
    others = special.logit(np.clip(left_out, TINY, 1 - TINY))
    error = np.sqrt((prompts - 1) * ((others - others.mean(axis=0)) ** 2).mean(axis=0))
    reach = stats.t.ppf(0.5 + level / 2, prompts - 1) * error
    return np.asarray(special.expit(middle - reach)), np.asarray(special.expit(middle + reach))


def _shares(index: Array, prompts: int) -> Array:
    """How often each prompt is in each resample, as shares: (resample, prompt)."""
    places = index + prompts * np.arange(len(index))[:, None]
    counts = np.bincount(places.ravel(), minlength=len(index) * prompts).reshape(len(index), prompts)
    return np.asarray(counts / index.shape[1])


def said(prompts: int, resamples: int = RESAMPLES, level: float = LEVEL) -> str:
    """What a result says of its intervals."""
    if prompts < 2:
        return "none: one prompt text says nothing of others"
    return f"{level:.0%}, percentile bootstrap over {prompts} prompt texts, {resamples} resamples"
