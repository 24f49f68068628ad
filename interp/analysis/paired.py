"""Compare two methods on the same prompts and seeds: difference, interval, p, effect size, equivalence, verdict.

Results are meant to hold for other prompts and other noise: both are sampled (`interp.analysis.intervals`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from interp.analysis import intervals, sources
from interp.analysis.result import Estimate, result
from interp.analysis.sampled import Sampled
from interp.base.errors import InputError
from interp.store.schema import Array

PERMUTATIONS = 9_999
ALPHA = 0.05
EQUIVALENT = "no different, by more than the margin"
DIRECTIONS = ("better", "worse")
ALONE = " by itself, not after correction"


def compare(
    scores: xr.DataArray, baseline: str | None = None, *, margin: float = 0.0, lower_is_better: Sequence[str] = ()
) -> xr.Dataset:
    """Every setting against a baseline, for every measure, on the same prompts and seeds.

    `scores` is (setting, measure, prompt), NaN where something is not measured. Rows along `prompt` are independent, or samples
    of its coordinates prompt_text and seed. Differences below `margin`, in units of the baseline's deviation over prompts,
    count as none; 0 tests no equivalence.

    value, low, high            (setting, measure)   mean over prompts
    over, over_low, over_high   (setting, measure)   less the baseline's, paired by row
    win, win_low, win_high      (setting, measure)   share of prompts on which it is better, ties half
    p, p_holm                   (setting, measure)   test of the mean difference against 0; Holm over all of them
    effect                      (setting, measure)   mean difference over its deviation over prompts (Cohen's d_z)
    verdict                     (setting, measure)   better, worse, no different by more than the margin, or not shown; and
                                                     whether a difference is there before the correction alone
    """
    names = [str(name) for name in scores["setting"].to_numpy()]
    first = names[0] if baseline is None else baseline
    if first not in names:
        raise InputError(f"baseline must be one of {', '.join(names)}; got {first!r}")
    values = scores.transpose("prompt", "setting", "measure").to_numpy().astype(float)
    units = sources.units(scores)
    own = values[:, [names.index(first)]]
    differences = values - own
    sign = np.array([-1.0 if str(m) in lower_is_better else 1.0 for m in scores["measure"].to_numpy()])
    won = np.where(np.isnan(differences), np.nan, np.sign(np.round(differences, 12)) * sign / 2 + 0.5)
    dims, over = ("setting", "measure"), Estimate.mean(differences, units)
    p = intervals.p_of_zero(differences, units) if units.shared else _permutation_p(intervals.by_text(differences, units))
    p[names.index(first)] = np.nan
    spread = intervals.by_text(differences, units).std(axis=0, ddof=1) if units.prompts > 1 else np.full(p.shape, np.nan)
    effect = np.divide(over.value, spread, out=np.full(p.shape, np.nan), where=spread > 0)
    said = _verdicts(differences, over, p, sign, within_margin(differences, own, units, margin))
    said[names.index(first)] = "the baseline"
    corrected = holm(p)
    test = "two-way t test" if units.shared else f"paired permutation of signs, {PERMUTATIONS} draws"
    return result(
        "paired",
        {
            "value": (dims, Estimate.mean(values, units)),
            "over": (dims, over),
            "win": (dims, Estimate.share(won, units)),
            "p": (dims, p),
            "p_holm": (dims, corrected),
            "effect": (dims, effect),
            "verdict": (dims, _after(said, corrected)),
        },
        {"setting": scores["setting"], "measure": scores["measure"]},
        averaged_over="",
        interval=f"{units.said()}; wins: Wilson",
        baseline=first,
        margin=margin,
        p=f"{test}; Holm over {int(np.isfinite(p).sum())} comparisons",
    )


def within_margin(differences: Array, own: Array, units: Sampled, margin: float) -> Array:
    """Whether the mean difference over the baseline's deviation over prompts lies within +-margin: its 90% interval, as in two
    one-sided tests at 5% (Schuirmann 1987). The deviation is an estimate too: the interval is of their ratio.
    """
    if not margin or not units.enough:
        return np.zeros(differences.shape[1:], bool)
    base = intervals.by_text(np.broadcast_to(own, differences.shape), units)
    centred = base - base.mean(axis=0)
    moments = np.stack([intervals.by_text(differences, units), centred, centred**2], axis=1)
    many = len(base) / (len(base) - 1)

    def standardised(means: Array) -> Array:
        deviation = np.sqrt(np.maximum(means[:, 2] - means[:, 1] ** 2, 0.0) * many)
        return np.asarray(np.divide(means[:, 0], deviation, out=np.full(means[:, 0].shape, np.nan), where=deviation > 0))

    alone = Sampled.single(len(base))
    low, high = intervals.interval(moments, alone, standardised, level=1 - 2 * ALPHA)
    spread = differences.std(axis=0) > 0  # ties have no width and show no equivalence
    return np.asarray(spread & (low >= -margin) & (high <= margin), bool)


def correct_together(found: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Tables of `compare`, with p corrected over all of them; a comparison in two tables counts once."""
    keys: dict[tuple[Any, ...], float] = {}
    places: dict[str, list[tuple[Any, ...]]] = {}
    for name, table in found.items():
        own = table["p"].transpose("setting", "measure")
        prompts = tuple(str(text) for text in table["prompt"].to_numpy())
        base = str(table.attrs["baseline"])
        places[name] = [(base, str(s), str(m), prompts) for s in own["setting"].to_numpy() for m in own["measure"].to_numpy()]
        keys |= dict(zip(places[name], own.to_numpy().ravel().tolist(), strict=True))
    corrected = dict(zip(keys, holm(np.array(list(keys.values()))).tolist(), strict=True))
    count = int(np.isfinite(np.array(list(keys.values()), float)).sum())
    together = {}
    for name, table in found.items():
        shape = table.sizes["setting"], table.sizes["measure"]
        p_holm = np.array([corrected[key] for key in places[name]], float).reshape(shape)
        dims = ("setting", "measure")
        said = _after(table["verdict"].transpose(*dims).to_numpy(), p_holm)
        text = f"paired permutation of signs, {PERMUTATIONS} draws; Holm over the {count} comparisons of all tables"
        together[name] = table.assign(p_holm=(dims, p_holm), verdict=(dims, said)).assign_attrs(p=text)
    return together


def _after(said: Array, corrected: Array) -> Array:
    """The verdicts after the correction."""
    found = np.empty(said.shape, object)
    for place in np.ndindex(*said.shape):
        before = str(said[place]).removesuffix(ALONE)
        found[place] = f"{before}{ALONE}" if before in DIRECTIONS and not corrected[place] <= ALPHA else before
    return found


def _permutation_p(differences: Array) -> Array:
    """Two-sided p of the mean of paired differences, (prompt, ...), under random signs; NaN below two prompts."""
    found = np.full(differences.shape[1:], np.nan)
    if len(differences) < 2:
        return found
    for place in np.ndindex(*found.shape):
        values = differences[(slice(None), *place)]
        if np.isfinite(values).all():
            test = stats.permutation_test(
                (values,),
                lambda sample, axis: sample.mean(axis=axis),
                permutation_type="samples",
                vectorized=True,
                n_resamples=PERMUTATIONS,
                rng=np.random.default_rng(0),
            )
            found[place] = test.pvalue
    return found


def holm(p: Array) -> Array:
    """P values corrected for their number (Holm 1979); NaN stays and does not count."""
    flat = np.asarray(p, float).ravel()
    known = np.flatnonzero(np.isfinite(flat))
    order = known[np.argsort(flat[known], kind="stable")]
    corrected = np.full(flat.shape, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(flat[order] * (len(order) - np.arange(len(order)))), 1.0)
    return corrected.reshape(np.shape(p))


def _verdicts(differences: Array, over: Estimate, p: Array, sign: Array, equivalent: Array) -> Array:
    """One rule for every number of prompts: a difference that is shown is not also none. `sign` is 1 where higher is better."""
    prompts, measured = len(differences), np.isfinite(differences).sum(axis=0)
    said = np.full(p.shape, "not shown", object)
    for place in np.ndindex(*p.shape):
        low, high, lack = over.low[place], over.high[place], prompts - measured[place]
        if not (np.isfinite(low) and np.isfinite(high)):
            why = f"not measured on {lack} of {prompts} rows" if 0 < lack < prompts - 1 else "too few prompts, or shared seeds"
            said[place] = f"cannot tell: {why}"
        elif (low > 0 or high < 0) and p[place] <= ALPHA:
            said[place] = DIRECTIONS[int((low > 0) != (sign[place[1]] > 0))]
        elif equivalent[place]:
            said[place] = EQUIVALENT
    return said
