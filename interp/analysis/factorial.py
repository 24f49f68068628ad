"""Two-level factorials: main effects, and the share of each term in the variance within prompts (Yates 1937)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from interp.analysis import intervals, sources, variance
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

    def means(values: Array) -> Array:
        """(prompt, ..., channel) to (text, ..., set)."""
        of_sets = np.stack([values[..., places].mean(axis=-1) for places in sources.alike(sets)], axis=-1)
        return sources.means_alike(of_sets, texts)

    effect = means(np.stack([contrast(log, (place,), count) for place in range(count)], axis=1))
    parts = means(np.moveaxis(variance.split_grid(np.moveaxis(log, 0, count), count), 0, 1))
    moved = Estimate.mean(effect**2)
    number = len(effect)
    return result(
        "swap",
        {
            "effect": (axes, Estimate.mean(effect)),
            "moved": (axes, Estimate(np.sqrt(moved.value), np.sqrt(moved.low), np.sqrt(moved.high))),
            "share": (("term", "block", "set"), Estimate.of_mean(parts, _shares, intervals.jackknife)),
            "size": (("prompt", *factors, "block", "channel"), sizes.astype(np.float32)),
            "own_level": (("step", "block", "set"), means(levels).mean(axis=0)),
        },
        {
            "factor": list(factors),
            "term": [":".join(factors[place] for place in term) for term in variance.terms_of(factors)],
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
        interval=f"effects {intervals.said(number)}; shares {intervals.said_jackknife(number, 'share')}",
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


def _shares(parts: Array) -> Array:
    """(resample, term, ...) variances of the terms as shares of their sum."""
    return np.asarray(parts / parts.sum(axis=1, keepdims=True))
