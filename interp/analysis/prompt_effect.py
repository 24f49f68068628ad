"""How much of the prompt an edit leaves: distances between latents of two prompts that share a seed, edited and not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from interp.analysis import intervals, sampled, sources
from interp.store.experiment import Experiment
from interp.store.schema import Array

FEWEST = 16  # prompts, below which the interval is far too wide (docs/statistics.md)


def by_row(experiment: Experiment, arm: int) -> dict[int, float]:
    """Per row, the distance of its latents to those of other prompts under an arm over the same pairs' under the original, less
    1. Only pairs that are drawn under both count; a row without any is left out.
    """
    pairs, distances = pair_distances(experiment, arm)
    sums = {int(pairs[places[0], 0]): distances[places].sum(axis=0) for places in sampled.alike(pairs[:, 0])}
    return {row: float(under / before - 1) for row, (under, before) in sums.items() if before > 0}


def pair_distances(experiment: Experiment, arm: int) -> tuple[Array, Array]:
    """Rows of one seed and two prompts, (pair, 2), and how far apart their latents are under the arm and under the original,
    (pair, 2); of all rows that are drawn under both.
    """
    rows = np.flatnonzero(experiment.done[:, [arm, 0]].all(axis=1))
    latents = [{row: experiment.latents(row, which).astype(np.float64) for row in rows.tolist()} for which in (arm, 0)]
    pairs = same_seed(experiment.axes, rows)
    distances = [[float(np.sqrt(((one[a] - one[b]) ** 2).mean())) for one in latents] for a, b in pairs]
    return np.array(pairs, int).reshape(-1, 2), np.array(distances, float).reshape(-1, 2)


def of_arms(experiment: Experiment, arms: Sequence[int], level: float = 0.95) -> tuple[float, float, float]:
    """`prompt_effect` of arms together, with a two-way interval on the log scale; NaN where no two prompts share a seed."""
    pairs, distances = (np.concatenate(parts) for parts in zip(*(pair_distances(experiment, arm) for arm in arms), strict=True))
    if not len(pairs):
        return (float("nan"),) * 3
    axes = experiment.axes
    units = sources.units(axes).part(np.unique(pairs))
    texts, seeds = axes["prompt_text"].to_numpy().astype(str)[pairs], axes["seed"].to_numpy()[pairs[:, 0]]

    def ratio(kept: Array) -> float:
        under, before = distances[kept].sum(axis=0)
        return float(under / before) if before > 0 else float("nan")

    estimate = ratio(np.ones(len(pairs), bool))
    if not units.enough or units.prompts < FEWEST:
        return estimate - 1, float("nan"), float("nan")
    rows = np.unique(pairs, return_inverse=True)[1].reshape(pairs.shape)
    groups = (np.random.default_rng(0).permutation(rows.max() + 1) % sampled.CELL_GROUPS)[rows]  # of pictures: all their pairs
    leave_out = [
        [(texts != text).all(axis=1) for text in np.unique(texts)],
        [seeds != seed for seed in np.unique(seeds)],
        [(groups != group).all(axis=1) for group in np.unique(groups)],
    ]
    (forward, backward), pseudo = intervals.SCALES["ratio"], []
    for kept in leave_out:
        pseudo.append(
            len(kept) * forward(np.array(estimate)) - (len(kept) - 1) * forward(np.array([ratio(rows) for rows in kept]))
        )
    low, high = intervals.from_pseudo(forward(np.array(estimate)), pseudo, level)
    return estimate - 1, float(backward(low)) - 1, float(backward(high)) - 1


def same_seed(axes: xr.Dataset, rows: Array) -> list[tuple[int, int]]:
    """Pairs of these rows with one seed and two prompts, each in both orders."""
    texts, seeds = sources.labels(axes)
    return [(a, b) for a in rows.tolist() for b in rows.tolist() if seeds[a] == seeds[b] and texts[a] != texts[b]]
