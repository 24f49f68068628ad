"""Intervals: bootstrap, jackknife and t intervals over prompts, and their descriptions in results."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import special, stats

from interp.store.schema import Array

RESAMPLES = 500
LEVEL = 0.95
TINY = 1e-12
LARGEST = 20_000_000  # values in memory at once while resampling


def bootstrap(
    values: Array,
    function: Callable[[Array], Array] = lambda mean: mean,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Array, Array]:
    """Percentile bootstrap over prompts of a function of the mean: (low, high), each of the function's shape.

    `values` is (prompt, ...); `function` maps (resample, ...) means to (resample, ...) results. With fewer than two prompts
    there is no interval: NaN; nor with fewer than two resamples.
    """
    prompts = values.shape[0]
    flat = values.reshape(prompts, -1)
    if prompts < 2 or resamples < 2:
        nothing = np.full(np.shape(function(values.mean(axis=0, keepdims=True))[0]), np.nan)
        return nothing, nothing.copy()

    def statistic(index: Array, axis: int = -1) -> Array:
        rows = np.atleast_2d(index)
        places = rows + prompts * np.arange(len(rows))[:, None]
        counts = np.bincount(places.ravel(), minlength=len(rows) * prompts).reshape(len(rows), prompts)
        means = ((counts / rows.shape[1]).astype(flat.dtype) @ flat).reshape(len(rows), *values.shape[1:])
        result = np.moveaxis(function(means), 0, -1)
        return np.asarray(result if index.ndim > 1 else result[..., 0])

    # missing values are NaN, and so are their intervals, without a warning of scipy
    unsaid = warnings.catch_warnings(action="ignore", category=stats.DegenerateDataWarning)
    with unsaid if np.isnan(flat).any() else contextlib.nullcontext():
        found = stats.bootstrap(
            (np.arange(prompts),),
            statistic,
            n_resamples=resamples,
            batch=max(1, min(resamples, LARGEST // max(flat.shape[1], 1))),
            confidence_level=LEVEL,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(seed),
        )
    return np.asarray(found.confidence_interval.low), np.asarray(found.confidence_interval.high)


def jackknife(
    values: Array, function: Callable[[Array], Array], *, scale: str = "share", level: float = LEVEL
) -> tuple[Array, Array]:
    """Jackknife over prompts of a function of the mean: t intervals on the logit (`share`) or Fisher's z (`correlation`) scale.

    For estimates that suit the percentile bootstrap badly: it covers shares of variance, which are skewed, too seldom
    (coverages: docs/findings.md), and resampled rank correlations are biased towards zero. Fewer than three prompts: NaN.
    """
    prompts = values.shape[0]
    estimate = function(values.mean(axis=0, keepdims=True))[0]
    if prompts < 3:
        nothing = np.full(np.shape(estimate), np.nan)
        return nothing, nothing.copy()
    left_out = (values.sum(axis=0, keepdims=True) - values) / (prompts - 1)
    return from_jackknife(estimate, function(left_out), scale=scale, level=level)


def from_jackknife(estimate: Array, left_out: Array, *, scale: str = "share", level: float = LEVEL) -> tuple[Array, Array]:
    """The same from the estimate and the estimates without each prompt, (prompt, ...)."""
    forward, backward = SCALES[scale]
    prompts, middle, others = len(left_out), forward(estimate), forward(left_out)
    error = np.sqrt((prompts - 1) * ((others - others.mean(axis=0)) ** 2).mean(axis=0))
    reach = stats.t.ppf(0.5 + level / 2, prompts - 1) * error
    return np.asarray(backward(middle - reach)), np.asarray(backward(middle + reach))


SCALES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "share": (lambda share: special.logit(np.clip(share, TINY, 1 - TINY)), special.expit),
    "ratio": (lambda ratio: np.log(np.maximum(ratio, TINY)), np.exp),
    "correlation": (lambda r: np.arctanh(np.clip(r, TINY - 1, 1 - TINY)), np.tanh),
}


def student(values: Array, level: float = LEVEL) -> tuple[float, float]:
    """T interval of the mean of independent values; NaN below three of them."""
    if len(values) < 3:
        return float("nan"), float("nan")
    error = float(np.std(values, ddof=1)) / np.sqrt(len(values))
    reach = float(stats.t.ppf(0.5 + level / 2, len(values) - 1)) * error
    return float(values.mean()) - reach, float(values.mean()) + reach


def said_jackknife(prompts: int, scale: str) -> str:
    """The description of jackknife intervals in a result."""
    if prompts < 3:
        return "none: it needs three prompt texts"
    name = {"share": "the logit scale", "correlation": "Fisher's z"}[scale]
    return f"{LEVEL:.0%}, jackknife over {prompts} prompt texts on {name}"


def everywhere(work: Callable[[tuple[int, ...]], None], shape: tuple[int, ...]) -> None:
    """`work(place)` for every place of an array; in threads, since places are independent."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, np.ndindex(*shape)))


def said(prompts: int, resamples: int = RESAMPLES) -> str:
    """The description of bootstrap intervals in a result."""
    if prompts < 2:
        return "none: one prompt text says nothing of others"
    if resamples < 2:
        return "none: not asked for"
    return f"{LEVEL:.0%}, percentile bootstrap over {prompts} prompt texts, {resamples} resamples"
