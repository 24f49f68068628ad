"""Stability of the top-k channels: Jaccard overlap across prompts, seeds, steps and blocks."""

from __future__ import annotations

import itertools

import numpy as np
import xarray as xr
from scipy import stats

from interp.analysis import sampled, sources
from interp.analysis.criteria import largest
from interp.analysis.result import Estimate, result
from interp.analysis.sampled import Sampled
from interp.base.streams import GENERATED
from interp.store.schema import Array

FEWEST = 8  # pairs


def sets(source: sources.Source, k: int = 8, *, stream: str = GENERATED, seed: int = 0) -> xr.Dataset:
    """Jaccard overlap |A and B| / |A or B| of the k channels of largest mean |x|, means over pairs of samples.

    prompts     (block)   other prompt, same seed; sets averaged over steps
    seeds       (block)   same prompt, other seed; NaN where each prompt has one seed
    steps       (block)   neighbouring steps of one sample
    first_last  (block)   first and last step of one sample
    blocks      (block)   this block and the next, one sample, averaged over steps
    each with _low, _high; `chance` is the mean overlap of two random sets of k.
    """
    stream = sources.stream_of(source, stream)
    sizes = sources.statistics(source, stream)["mean_abs"].transpose("prompt", "step", "block", "channel")
    texts, seeds = sources.labels(sizes)
    units, draw = sources.units(sizes), np.random.default_rng(seed)
    others, pairs = _pairs(texts, seeds, bool(units.shared), draw)
    by_sample: dict[str, list[Array]] = {"steps": [], "first_last": []}
    means: list[Array] = []
    for values in sources.rows(sizes):
        means.append(values.mean(axis=0, dtype=np.float64).astype(np.float32))
        here = largest(values, k)
        neighbours = jaccard(here[:-1], here[1:]) if len(here) > 1 else np.full((1, here.shape[1]), np.nan)
        by_sample["steps"].append(neighbours.mean(axis=0))
        by_sample["first_last"].append(jaccard(here[0], here[-1]))
    over_steps = largest(np.stack(means), k)
    found = {
        **{name: np.stack(values) for name, values in by_sample.items()},
        "blocks": np.pad(jaccard(over_steps[:, :-1], over_steps[:, 1:]), ((0, 0), (0, 1)), constant_values=np.nan),
    }
    absent = np.isnan(sizes.isel(prompt=0, step=0).to_numpy()).any(axis=-1)  # a block without this stream
    gone = dict.fromkeys(found, absent) | {"blocks": absent | np.roll(absent, -1)}
    sampled = dict.fromkeys(found, units)
    for name, (rows, of) in {"prompts": others, "seeds": pairs}.items():
        found[name], sampled[name] = jaccard(over_steps[rows[:, 0]], over_steps[rows[:, 1]]), of
    gone |= dict.fromkeys(("prompts", "seeds"), absent)
    data = {name: ("block", _estimate(np.where(gone[name], np.nan, v), sampled[name])) for name, v in found.items()}
    return result(
        "stability",
        {**data, "chance": ((), chance(k, sizes.sizes["channel"]))},
        sources.along(sizes, "block"),
        averaged_over="pairs of samples",
        interval=f"{units.said()}; none of fewer than {FEWEST} pairs",
        control="chance: two random sets of k channels",
        note="prompts: pairs of one seed" if units.shared else "prompts: pairs of other prompts, which have other seeds too",
        stream=stream,
        k=k,
        **sources.facts_of(source),
    )


def _estimate(values: Array, units: Sampled) -> Estimate:
    """The mean over pairs or samples; NaN without any. Overlaps have few values: of few pairs there is no interval."""
    nothing = np.full(values.shape[1], np.nan)
    if not len(values):
        return Estimate(nothing, nothing, nothing)
    found = Estimate.mean(values, units)
    return found if units.prompts >= FEWEST else Estimate(found.value, nothing, nothing)


def jaccard(first: Array, second: Array) -> Array:
    """|A and B| / |A or B| along the last axis of booleans."""
    return np.asarray((first & second).sum(axis=-1) / np.maximum((first | second).sum(axis=-1), 1))


def chance(k: int, channels: int) -> float:
    """Mean Jaccard overlap of two independent random sets of k of the channels: the common part is hypergeometric."""
    return float(stats.hypergeom(channels, k, k).expect(lambda common: common / (2 * k - common)))


def _pairs(
    texts: Array, seeds: Array, shared: bool, draw: np.random.Generator
) -> tuple[tuple[Array, Sampled], tuple[Array, Sampled]]:
    """Pairs of rows, (pair, 2), and what they are samples of: of two prompts, each prompt in one pair, with the same seed where
    prompts share seeds; and of two seeds of one prompt, each of its neighbours.
    """
    groups = sampled.alike(texts)
    order = draw.permutation(len(groups))
    others: list[tuple[int, int]] = []
    names: list[tuple[str, int]] = []
    for first, second in zip(order[::2], order[1::2], strict=False):
        for row in groups[first]:
            beside = [other for other in groups[second] if seeds[other] == seeds[row]] if shared else groups[second]
            others += [(row, beside[len(names) % len(beside)])] if len(beside) else []
            names += [(f"{first} {second}", seeds[row])] if len(beside) else []
    same = [(a, b) for group in groups for a, b in itertools.pairwise(group)]
    of_others = Sampled([name for name, _ in names], [seed for _, seed in names] if shared else None)
    return (_table(others), of_others), (_table(same), Sampled([texts[a] for a, _ in same]))


def _table(pairs: list[tuple[int, int]]) -> Array:
    return np.array(pairs, int).reshape(-1, 2)
