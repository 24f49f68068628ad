"""Correlation of alpha and activations over channels. DG Figs. 4a, 13-15.

A correlation does not show that alpha causes the activations; an intervention (`interp.govern`) tests that.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import stats

from interp.analysis import intervals, sources
from interp.analysis.criteria import largest
from interp.analysis.result import result
from interp.analysis.sampled import Sampled
from interp.base.streams import GENERATED
from interp.store.schema import Array
from interp.store.traced_run import Run

PERMUTATIONS = 499
TARGETS = ("hidden", "update")
NAMES = ("correlation", "correlation_low", "correlation_high", "other_block", "p_other_block", "p_permutation", "overlap")


def compare(source: Run, *, stream: str = GENERATED, k: int = 8, seed: int = 0) -> xr.Dataset:
    """Per block and gate, |alpha| against the block's output (`hidden`: mean |x|) and its `update` (|change of mean x|).

    correlation, _low, _high      (target, block, gate)   Spearman over channels
    other_block                   (target, block, gate)   null: mean correlation with another block's alpha. Channels are not
                                                          exchangeable, so this null is the relevant one
    p_other_block                 (target, block, gate)   rank of the block's own alpha among the other blocks'
    p_permutation                 (target, block, gate)   channels permuted
    overlap                       (target, block, gate)   share of the k largest channels that both have; by chance k / channels
    alpha_rank                    (block, gate)           rank of |alpha| at the channel of largest mean |hidden|; 0 is largest
    """
    stream = sources.stream_of(source, stream)
    gates, statistics = sources.gates(source, stream), sources.statistics(source, stream)
    axes = ("prompt", "block", "channel")
    alpha = sources.over_steps(abs(gates["alpha"])).transpose("gate", *axes)
    units = sources.units(alpha)
    change = abs(statistics["mean"].diff("block", label="upper")).reindex(block=statistics["block"])
    targets = [sources.over_steps(values).transpose(*axes).to_numpy() for values in (statistics["mean_abs"], change)]
    numbers = [[_one(gate, target, units, k, seed) for gate in alpha.to_numpy()] for target in targets]
    found = {name: np.array([[one[name] for one in line] for line in numbers]).swapaxes(1, 2) for name in NAMES}
    alphas = np.stack([intervals.mean_of_texts(gate, units) for gate in alpha.to_numpy()])  # (gate, block, channel)
    sizes = intervals.mean_of_texts(targets[0], units)  # (block, channel)
    at_largest = np.take_along_axis(alphas, sizes.argmax(axis=-1)[None, :, None], axis=-1)
    rank = np.where(np.isnan(alphas + sizes).any(axis=-1), np.nan, (alphas > at_largest).sum(axis=-1))
    return result(
        "alignment",
        {
            **{name: (("target", "block", "gate"), value) for name, value in found.items()},
            "alpha_rank": (("block", "gate"), rank.T),
            "chance": ((), k / statistics.sizes["channel"]),
        },
        {"target": TARGETS, "gate": alpha["gate"], **sources.along(statistics, "block")},
        averaged_over="tokens, steps, then prompt texts",
        interval=units.said("correlation"),
        control=f"another block's alpha; {PERMUTATIONS} permutations of the channels",
        note="a correlation: whether alpha governs is a question for an intervention",
        stream=stream,
        k=k,
        **sources.facts_of(source),
    )


def _one(alpha: Array, values: Array, units: Sampled, k: int, seed: int) -> dict[str, Array]:
    """All numbers of one gate and target from (prompt, block, channel) arrays; NaN for blocks that lack either."""
    present = np.flatnonzero(~(np.isnan(alpha).any(axis=(0, 2)) | np.isnan(values).any(axis=(0, 2))))
    found = {name: np.full(alpha.shape[1], np.nan) for name in NAMES}
    if not len(present):
        return found
    mean_alpha, mean_value = (intervals.mean_of_texts(one, units)[present] for one in (alpha, values))
    ranks_alpha, ranks_value = standardised_ranks(mean_alpha), standardised_ranks(mean_value)
    every = ranks_value @ ranks_alpha.T  # (block of the value, block of the alpha)
    own = np.diag(every)
    found["correlation"][present] = own
    draw = np.random.default_rng(seed)
    orders = [draw.permutation(alpha.shape[2]) for _ in range(PERMUTATIONS)]
    chance = np.stack([np.einsum("bc,bc->b", ranks_alpha[:, order], ranks_value) for order in orders])
    found["p_permutation"][present] = (1 + (chance >= own).sum(axis=0)) / (1 + PERMUTATIONS)
    if len(present) > 1:
        others = every[~np.eye(len(present), dtype=bool)].reshape(len(present), -1)
        found["other_block"][present] = others.mean(axis=1)
        found["p_other_block"][present] = (1 + (others >= own[:, None]).sum(axis=1)) / (1 + others.shape[1])
    both = largest(mean_alpha, k) & largest(mean_value, k)
    found["overlap"][present] = both.sum(axis=1) / k

    def one(place: tuple[int, ...]) -> None:
        block = present[place[0]]
        pair = np.stack([alpha[:, block], values[:, block]], axis=1)
        low, high = intervals.interval(pair, units, spearman, scale="correlation", rough=True)
        found["correlation_low"][block], found["correlation_high"][block] = low, high

    intervals.everywhere(one, (len(present),))
    return found


def standardised_ranks(values: Array) -> Array:
    """Ranks along the last axis with mean 0 and length 1: their products are Spearman correlations."""
    ranks = stats.rankdata(values, axis=-1)
    ranks = ranks - ranks.mean(axis=-1, keepdims=True)
    length = np.sqrt((ranks**2).sum(axis=-1, keepdims=True))
    return np.asarray(np.divide(ranks, length, out=np.zeros(ranks.shape), where=length > 0))


def spearman(pairs: Array) -> Array:
    """Spearman correlation of (..., 2, channel)."""
    ranks = standardised_ranks(pairs)
    return np.asarray((ranks[..., 0, :] * ranks[..., 1, :]).sum(axis=-1))
