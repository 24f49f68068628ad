"""Two-level factorials: main effects, and the share of each term in the variance within prompts (Yates 1937)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import xarray as xr

from interp.analysis import intervals
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
    count = len(factors)
    names = list(dict.fromkeys(sets))
    log = np.log2(sizes)
    order = list(dict.fromkeys(texts))
    groups = np.array([order.index(text) for text in texts])
    effects = np.stack([contrast(log, (place,), count) for place in range(count)])  # (factor, prompt, block, channel)
    terms = [term for size in range(1, count + 1) for term in itertools.combinations(range(count), size)]
    squares = np.stack([(contrast(log, term, count) / 2 ** len(term)) ** 2 for term in terms])
    parts = [_of_set(effects, squares, [n for n, one in enumerate(sets) if one == name], groups) for name in names]
    means = [_by_text(levels[..., [n for n, one in enumerate(sets) if one == name]].mean(axis=-1), groups) for name in names]
    axes = {"effect": ("factor", "block", "set"), "moved": ("factor", "block", "set"), "share": ("term", "block", "set")}
    return result(
        "swap",
        {
            **{name: (axes[name], _stacked([part[name] for part in parts])) for name in axes},
            "size": (("prompt", *factors, "block", "channel"), sizes.astype(np.float32)),
            "own_level": (("step", "block", "set"), np.stack([mean.mean(axis=0) for mean in means], axis=-1)),
        },
        {
            "factor": list(factors),
            "term": [":".join(factors[place] for place in term) for term in terms],
            "set": names,
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
        interval=f"effects {intervals.said(len(order))}; shares {intervals.said_jackknife(len(order), 'share')}",
        note="log2: 1 doubles the size. Of pooled and tokens only `moved` means something: every prompt is own once and "
        "other once, so that their mean effect is 0 whatever the text does",
    )


def _of_set(effects: Array, squares: Array, places: list[int], groups: Array) -> dict[str, Estimate]:
    """Effects, how far they move, and shares of the variance, of the channels at these places: (factor or term, block)."""
    effect = _by_text(np.moveaxis(effects[..., places].mean(axis=-1), 1, 0), groups)  # (text, factor, block)
    part = _by_text(np.moveaxis(squares[..., places].mean(axis=-1), 1, 0), groups)  # (text, term, block)
    moved = Estimate.mean(effect**2)
    return {
        "effect": Estimate.mean(effect),
        "moved": Estimate(np.sqrt(moved.value), np.sqrt(moved.low), np.sqrt(moved.high)),
        "share": Estimate(_shares(part.mean(axis=0)[None])[0], *intervals.jackknife(part, _shares)),
    }


def _stacked(parts: list[Estimate]) -> Estimate:
    """Estimates of several sets along a last axis."""
    value, low, high = (np.stack([getattr(one, end) for one in parts], axis=-1) for end in ("value", "low", "high"))
    return Estimate(value, low, high)


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


def _by_text(values: Array, groups: Array) -> Array:
    """(prompt, ...) to (text, ...)."""
    return np.stack([values[groups == number].mean(axis=0) for number in range(groups.max() + 1)])
