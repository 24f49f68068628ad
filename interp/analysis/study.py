"""Blind pairwise comparisons by people: win rates and agreement. DG section 5.3, App. I (20 raters, 100 pairs).

An answer is 1 (the first method), 0.5 (a tie) or 0 (the second). Answers of
one rater are not independent, so intervals cluster by rater.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from interp.analysis.result import Estimate, result
from interp.analysis.sampled import LEVEL
from interp.base.errors import InputError
from interp.store.schema import Array

QUESTIONS = ("detail", "colour", "prompt")
VALUES = {"first": 1.0, "tie": 0.5, "second": 0.0}


def win_rates(answers: Sequence[Mapping[str, Any]], first: str = "first", second: str = "second") -> xr.Dataset:
    """Win rates of two methods. Each answer has `rater`, `pair`, and `first`, `tie` or `second` for every question.

    win, win_low, win_high   (question)   share of answers for the first method, a tie counted half
    first, tie, second       (question)   counts
    agreement                (question)   Krippendorff's alpha (nominal) between raters; NaN where no pair has two raters
    """
    table = _table(answers)
    raters, pairs = table.sizes["rater"], table.sizes["pair"]
    values = [table.sel(question=question).to_numpy() for question in QUESTIONS]
    return result(
        "study",
        {
            "win": ("question", Estimate.stack([Estimate(*clustered_mean(one)) for one in values])),
            "agreement": ("question", [krippendorff(one) for one in values]),
            **{name: ("question", [float((one == value).sum()) for one in values]) for name, value in VALUES.items()},
        },
        {"question": list(QUESTIONS)},
        averaged_over="answers; a tie counts half",
        interval=f"{LEVEL:.0%}, Student's t over {raters} raters" if raters > 1 else "none: one rater",
        control="0.5: no preference",
        methods=[first, second],
        raters=raters,
        pairs=pairs,
        answers=int(table.notnull().any("question").sum()),
    )


def _table(answers: Sequence[Mapping[str, Any]]) -> xr.DataArray:
    """(question, rater, pair) of 1, 0.5, 0; NaN where a rater did not answer. A later answer replaces an earlier one."""
    if not answers:
        raise InputError("answers must be one or more; got none")
    raters = sorted({str(answer["rater"]) for answer in answers})
    pairs = sorted({str(answer["pair"]) for answer in answers})
    values = np.full((len(QUESTIONS), len(raters), len(pairs)), np.nan)
    for answer in answers:
        for number, question in enumerate(QUESTIONS):
            if answer[question] not in VALUES:
                raise InputError(f"answer.{question} must be one of {', '.join(VALUES)}; got {answer[question]!r}")
            values[number, raters.index(str(answer["rater"])), pairs.index(str(answer["pair"]))] = VALUES[answer[question]]
    return xr.DataArray(values, {"question": list(QUESTIONS), "rater": raters, "pair": pairs}, ("question", "rater", "pair"))


def clustered_mean(values: Array, level: float = LEVEL) -> tuple[float, float, float]:
    """Mean of all answers, (rater, pair), and its interval with raters as clusters: Cochran's ratio estimator, Student's t with
    raters - 1 degrees of freedom. One rater gives no interval: NaN.
    """
    counts, sums = np.isfinite(values).sum(axis=1), np.nansum(values, axis=1)
    raters, total = int((counts > 0).sum()), counts.sum()
    if not total:
        return np.nan, np.nan, np.nan
    mean = sums.sum() / total
    if raters < 2:
        return float(mean), np.nan, np.nan
    residual = sums - mean * counts
    error = np.sqrt(raters / (raters - 1) * (residual**2).sum()) / total
    reach = float(stats.t.ppf((1 + level) / 2, raters - 1) * error)
    return float(mean), float(max(mean - reach, 0.0)), float(min(mean + reach, 1.0))


def krippendorff(values: Array) -> float:
    """Krippendorff's alpha for nominal data, (rater, item) with NaN for no answer: 1 is full agreement, 0 is chance.

    Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability".
    """
    kinds = np.unique(values[np.isfinite(values)])
    counts = (values == kinds[:, None, None]).sum(axis=1).T
    counts = counts[counts.sum(axis=1) > 1]  # (item, kind) of the items with two answers or more
    shared = counts / (counts.sum(axis=1, keepdims=True) - 1)
    coincidence = counts.T @ shared - np.diag(shared.sum(axis=0))
    margins, total = coincidence.sum(axis=1), coincidence.sum()
    if total < 2:
        return float("nan")
    observed = total - np.trace(coincidence)
    expected = (total**2 - (margins**2).sum()) / (total - 1)
    return float(1 - observed / expected) if expected > 0 else 1.0


def order(study: str, rater: str, rows: Sequence[int]) -> list[tuple[int, bool]]:
    """The rows in this rater's own order, and whether the second method is on the left; the same in every session."""
    seed = int.from_bytes(hashlib.sha256(f"{study}\n{rater}".encode()).digest()[:8], "big")
    draw = np.random.default_rng(seed)
    mixed = draw.permutation(len(rows))
    swapped = draw.permutation(np.arange(len(rows)) % 2 == 0)  # as often on the one side as on the other
    return [(int(rows[place]), bool(left)) for place, left in zip(mixed, swapped, strict=True)]
