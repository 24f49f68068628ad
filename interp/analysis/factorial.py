"""Full grids: their variance split into main effects and interactions, and the effects of two-level factorials (Yates 1937).

Main effects and interactions of a full grid split its variance exactly (Hoeffding 1948; Sobol 1993); a player's Shapley share
is S_i + S_ij / 2 + ...
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import xarray as xr

from interp.analysis import intervals, sampled
from interp.analysis.result import Estimate, result
from interp.store.schema import Array

LEVELS = {
    **dict.fromkeys(("timestep", "latents"), ("early", "late")),
    **dict.fromkeys(("pooled", "tokens"), ("own", "other")),
}


def split(
    sizes: Array,
    levels: Array,
    *,
    factors: Sequence[str],
    texts: Sequence[str],
    seeds: Sequence[int],
    steps: Sequence[int],
    blocks: Sequence[int],
    channels: Sequence[int],
    sets: Sequence[str],
) -> xr.Dataset:
    """Effects and shares of (prompt, *factors, block, channel) sizes; `levels` is (prompt, step, block, channel)."""
    count, axes = len(factors), ("factor", "block", "set")
    log = np.log2(sizes)

    units = sampled.Sampled(texts, seeds)

    def means(values: Array) -> Array:
        """(prompt, ..., channel) to (prompt, ..., set)."""
        return np.stack([values[..., places].mean(axis=-1) for places in sampled.alike(sets)], axis=-1)

    effect = means(np.stack([contrast(log, (place,), count) for place in range(count)], axis=1))
    shares = lambda parts: parts / parts.sum(axis=1, keepdims=True)  # noqa: E731
    parts = means(np.moveaxis(split_grid(np.moveaxis(log, 0, count), count), 0, 1))
    squares = Estimate.of_mean(effect**2, units, lambda mean: mean, "ratio")
    return result(
        "swap",
        {
            "effect": (axes, Estimate.mean(effect, units)),
            "moved": (axes, Estimate(*(np.sqrt(part) for part in (squares.value, squares.low, squares.high)))),
            "share": (
                ("term", "block", "set"),
                Estimate.of_mean(parts, units, shares, "share"),
            ),
            "size": (("prompt", *factors, "block", "channel"), sizes.astype(np.float32)),
            "own_level": (("step", "block", "set"), intervals.mean_of_texts(means(levels), units)),
        },
        {
            "factor": list(factors),
            "term": [":".join(factors[place] for place in term) for term in terms_of(factors)],
            "set": list(dict.fromkeys(sets)),
            "step": list(steps),
            "block": list(blocks),
            "channel": list(channels),
            "of_set": ("channel", list(sets)),
            "prompt": np.arange(len(texts)),
            "prompt_text": ("prompt", list(texts)),
            "seed": ("prompt", list(seeds)),
            **{factor: list(LEVELS[factor]) for factor in factors},
        },
        averaged_over="channels of a set, seeds, then prompt texts",
        interval=f"effects {units.said()}; shares on the logit scale",
        note="log2: 1 doubles the size. Of pooled and tokens only `moved` means something: every prompt is own once and "
        "other once, so that their mean effect is 0 whatever the text does",
    )


def contrast(values: Array, term: Sequence[int], count: int) -> Array:
    """The contrast of a term over `count` two-level axes, from axis 1 on: second level less first, mean over other factors."""
    found = values
    for place in reversed(range(count)):
        own, other = np.take(found, 0, axis=1 + place), np.take(found, 1, axis=1 + place)
        found = other - own if place in term else (other + own) / 2
    return found


def shares(parts: Array, levels: Sequence[int]) -> Array:
    """Variances of the terms, (term, ...), as shares of their sum; NaN if a player has one level, as nothing can be attributed
    to what does not vary.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(parts / parts.sum(axis=0) if min(levels) > 1 else np.full_like(parts, np.nan))


def undetermined(levels: Sequence[int]) -> str:
    """A note where `shares` are NaN."""
    return "" if min(levels) > 1 else "no shares, as one input has a single value: give two or more; "


def terms_of(players: Sequence[str]) -> list[tuple[int, ...]]:
    """Every player alone, every two together, ..., by number."""
    numbers = range(len(players))
    return [chosen for count in range(1, len(players) + 1) for chosen in itertools.combinations(numbers, count)]


def split_grid(table: Array, players: int) -> Array:
    """Variance of each term, (term, ...), of a full grid whose first axes are the players; terms in the order of `terms_of`."""
    terms = terms_of([""] * players)
    means: dict[tuple[int, ...], Array] = {}
    for kept in [(), *terms]:
        over = tuple(axis for axis in range(players) if axis not in kept)
        means[kept] = table.mean(axis=over, keepdims=True, dtype=np.float64)
    found = []
    for term in terms:
        effect = sum((-1) ** (len(term) - len(kept)) * mean for kept, mean in means.items() if set(kept) <= set(term))
        found.append((np.asarray(effect) ** 2).mean(axis=tuple(range(players))))
    return np.stack(found)


def with_text(first: Array, shift: Array, squares: dict[tuple[int, ...], Array], axes: tuple[int, ...]) -> Array:
    """Variances of all terms, text being player 0, from moments over texts of the inner grid's marginal means.

    `squares[kept]` is the mean over texts of the mean square of each text's marginal mean, less the first text's.
    """
    inner = dict(zip(terms_of([""] * len(axes)), split_grid(first + shift, len(axes)), strict=True))
    of_text: dict[tuple[int, ...], Array] = {}
    for kept, square in squares.items():
        over = tuple(axis for axis in axes if axis not in kept)
        centre = (shift.mean(axis=over, keepdims=True) ** 2).mean(axis=axes)
        below = sum((of_text[k] for k in of_text if set(k) < set(kept)), np.zeros_like(centre))
        of_text[kept] = np.maximum(square - centre - below, 0.0)
    found = []
    for term in terms_of([""] * (len(axes) + 1)):
        inner_part = tuple(player - 1 for player in term if player > 0)
        found.append((of_text if 0 in term else inner)[inner_part])
    return np.stack(found)


def share_intervals(table: Array, players: int) -> tuple[Array, Array]:
    """Intervals over prompts (the first axis) of the terms' shares: (term, site, channel) each."""
    prompts = len(table)
    if prompts < sampled.FEWEST:
        nothing = np.full((2**players - 1, *table.shape[players:]), np.nan)
        return nothing, nothing.copy()
    forward, backward = intervals.SCALES["share"]

    def share(rows: Array) -> Array:
        parts = split_grid(table[rows], players)
        return np.asarray(parts / parts.sum(axis=0))

    everyone = np.arange(prompts)
    left_out = np.stack([share(np.delete(everyone, row)) for row in everyone])
    estimate = forward(share(everyone))
    low, high = intervals.from_pseudo(estimate, [prompts * estimate - (prompts - 1) * forward(left_out)])
    return backward(low), backward(high)
