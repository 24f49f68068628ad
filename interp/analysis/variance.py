"""Functional analysis of variance: split the variance of a full grid into main effects and interactions.

Main effects and interactions of a full grid split its variance exactly (Hoeffding 1948; Sobol 1993); a player's Shapley share
is S_i + S_ij / 2 + ...
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from interp.analysis import intervals
from interp.store.schema import Array


def terms_of(players: Sequence[str]) -> list[tuple[int, ...]]:
    """Every player alone, every two together, ..., by number."""
    numbers = range(len(players))
    return [chosen for count in range(1, len(players) + 1) for chosen in itertools.combinations(numbers, count)]


def split_grid(table: Array, players: int) -> Array:
    """Variance of each term, (term, ...), of a full grid whose first axes are the players; terms in the order of `terms_of`."""
    means: dict[tuple[int, ...], Array] = {}
    for count in range(players + 1):
        for kept in itertools.combinations(range(players), count):
            over = tuple(axis for axis in range(players) if axis not in kept)
            means[kept] = table.mean(axis=over, keepdims=True, dtype=np.float64)
    found = []
    for term in terms_of([""] * players):
        effect = sum(
            (-1) ** (len(term) - count) * means[kept]
            for count in range(len(term) + 1)
            for kept in itertools.combinations(term, count)
        )
        found.append((np.asarray(effect) ** 2).mean(axis=tuple(range(players))))
    return np.stack(found)


def with_text(first: Array, shift: Array, squares: dict[tuple[int, ...], Array], axes: tuple[int, ...]) -> Array:
    """Variances of all terms, text being player 0, from moments over texts of the inner grid's marginal means.

    `squares[kept]` is the mean over texts of the mean square of each text's marginal mean, less the first text's.
    """
    mean = first + shift
    inner = split_grid(mean, len(axes))
    of_text: dict[tuple[int, ...], Array] = {}
    for kept in itertools.chain.from_iterable(itertools.combinations(axes, n) for n in range(len(axes) + 1)):
        over = tuple(axis for axis in axes if axis not in kept)
        centre = (shift.mean(axis=over, keepdims=True) ** 2).mean(axis=axes)
        below = sum((of_text[k] for k in of_text if set(k) < set(kept)), np.zeros_like(centre))
        of_text[kept] = np.maximum(squares[kept] - centre - below, 0.0)
    found = []
    for term in terms_of([""] * (len(axes) + 1)):
        inner_part = tuple(player - 1 for player in term if player > 0)
        found.append(of_text[inner_part] if 0 in term else inner[terms_of([""] * len(axes)).index(inner_part)])
    return np.stack(found)


def share_intervals(table: Array, players: int) -> tuple[Array, Array]:
    """Jackknife over prompts (the first axis) of the terms' shares: (term, site, channel) each."""
    prompts = len(table)
    if prompts < 3:
        nothing = np.full((2**players - 1, *table.shape[players:]), np.nan)
        return nothing, nothing.copy()

    def share(rows: Array) -> Array:
        variance = split_grid(table[rows], players)
        return np.asarray(variance / variance.sum(axis=0))

    everyone = np.arange(prompts)
    left_out = np.stack([share(np.delete(everyone, row)) for row in everyone])
    return intervals.from_jackknife(share(everyone), left_out)
