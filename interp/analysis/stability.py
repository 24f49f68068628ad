"""Stability of the top-k channels: Jaccard overlap across prompts, seeds, steps and blocks."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import stats

from interp.analysis import intervals, sources
from interp.analysis.criteria import largest
from interp.analysis.result import Estimate, result
from interp.store.schema import Array

PAIRS = 200  # pairs of prompts compared, at most


def sets(source: sources.Source, k: int = 8, *, stream: str = "image", seed: int = 0) -> xr.Dataset:
    """Jaccard overlap |A and B| / |A or B| of the k channels of largest mean |x| in pairs of samples, means over pairs.

    prompts     (block)   other prompt, same seed; sets averaged over steps
    seeds       (block)   same prompt, other seed; NaN where each prompt has one seed
    steps       (block)   neighbouring steps of one sample
    first_last  (block)   first and last step of one sample
    blocks      (block)   this block and the next, one sample, averaged over steps
    each with _low, _high; `chance` is the mean overlap of two random sets of k.
    """
    sizes = sources.statistics(source, stream)["mean_abs"].transpose("prompt", "step", "block", "channel")
    over_steps = largest(sources.over_steps(sizes).to_numpy(), k)
    texts, seeds = sources.labels(sizes)
    draw = np.random.default_rng(seed)
    same_text, same_seed = texts[:, None] == texts, seeds[:, None] == seeds
    others, same = _pairs(draw, ~same_text & same_seed), _pairs(draw, same_text)
    by_sample: dict[str, list[Array]] = {"steps": [], "first_last": []}
    for values in sources.rows(sizes):
        here = largest(values, k)
        neighbours = jaccard(here[:-1], here[1:]) if len(here) > 1 else np.full((1, here.shape[1]), np.nan)
        by_sample["steps"].append(neighbours.mean(axis=0))
        by_sample["first_last"].append(jaccard(here[0], here[-1]))
    found = {
        "prompts": jaccard(over_steps[others[:, 0]], over_steps[others[:, 1]]),
        "seeds": jaccard(over_steps[same[:, 0]], over_steps[same[:, 1]]),
        **{name: np.stack(values) for name, values in by_sample.items()},
        "blocks": np.pad(jaccard(over_steps[:, :-1], over_steps[:, 1:]), ((0, 0), (0, 1)), constant_values=np.nan),
    }
    absent = np.isnan(sizes.isel(prompt=0, step=0).to_numpy()).any(axis=-1)  # a block without this stream
    gone = dict.fromkeys(found, absent) | {"blocks": absent | np.roll(absent, -1)}
    nothing = Estimate(*[np.full(sizes.sizes["block"], np.nan)] * 3)
    data = {
        name: ("block", Estimate.mean(np.where(gone[name], np.nan, values)) if len(values) else nothing)
        for name, values in found.items()
    }
    return result(
        "stability",
        {**data, "chance": ((), chance(k, sizes.sizes["channel"]))},
        sources.along(sizes, "block"),
        averaged_over="pairs of samples",
        interval=f"{intervals.LEVEL:.0%}, percentile bootstrap over pairs, which share prompts: somewhat too narrow",
        control="chance: two random sets of k channels",
        stream=stream,
        k=k,
        **sources.facts_of(source),
    )


def jaccard(first: Array, second: Array) -> Array:
    """|A and B| / |A or B| along the last axis of booleans."""
    return np.asarray((first & second).sum(axis=-1) / np.maximum((first | second).sum(axis=-1), 1))


def chance(k: int, channels: int) -> float:
    """Mean Jaccard overlap of two independent random sets of k of the channels: the common part is hypergeometric."""
    return float(stats.hypergeom(channels, k, k).expect(lambda common: common / (2 * k - common)))


def _pairs(draw: np.random.Generator, wanted: Array) -> Array:
    """Some of the pairs of rows for which a (row, row) table is true: (pair, 2)."""
    kept = np.argwhere(np.triu(wanted, 1))
    return kept if len(kept) <= PAIRS else kept[np.sort(draw.choice(len(kept), PAIRS, replace=False))]
