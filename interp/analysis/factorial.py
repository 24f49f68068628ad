"""Two-level factorials: main effects, and the share of each term in the variance within prompts (Yates 1937)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import intervals
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
    by_set = {name: [place for place, one in enumerate(sets) if one == name] for name in names}
    bounds = ("", "_low", "_high")
    found: dict[str, list[Any]] = {f"{name}{bound}": [] for name in ("effect", "moved", "share") for bound in bounds}
    for places in by_set.values():
        effect = _by_text(np.moveaxis(effects[..., places].mean(axis=-1), 1, 0), groups)  # (text, factor, block)
        low, high = intervals.bootstrap(effect)
        part = _by_text(np.moveaxis(squares[..., places].mean(axis=-1), 1, 0), groups)  # (text, term, block)
        share_low, share_high = intervals.jackknife(part, _shares)
        squared = effect**2
        moved_low, moved_high = (np.sqrt(bound) for bound in intervals.bootstrap(squared))
        moved = (np.sqrt(squared.mean(axis=0)), moved_low, moved_high)
        values = (effect.mean(axis=0), low, high, *moved, _shares(part.mean(axis=0)[None])[0], share_low, share_high)
        for name, value in zip(found, values, strict=True):
            found[name].append(value)
    means = [_by_text(levels[..., places].mean(axis=-1), groups).mean(axis=0) for places in by_set.values()]
    own = np.stack(means, axis=-1)
    axes = {**dict.fromkeys(("effect", "moved"), ("factor", "block", "set")), "share": ("term", "block", "set")}
    data = {name: (axes[name.split("_")[0]], np.stack(values, axis=-1)) for name, values in found.items()}
    return xr.Dataset(
        {
            **data,
            "size": (("prompt", *factors, "block", "channel"), sizes.astype(np.float32)),
            "own_level": (("step", "block", "set"), own),
        },
        {
            "factor": np.array(factors, dtype=object),
            "term": np.array([":".join(factors[place] for place in term) for term in terms], dtype=object),
            "set": np.array(names, dtype=object),
            "step": list(steps),
            "block": list(blocks),
            "channel": list(channels),
            "of_set": ("channel", np.array(sets, dtype=object)),
            "prompt": np.arange(len(texts)),
            "prompt_text": ("prompt", np.array(texts, dtype=object)),
            "seed": ("prompt", list(seeds)),
            **{factor: np.array(LEVELS[factor], dtype=object) for factor in factors},
        },
        {
            "analysis": "swap",
            "averaged_over": "channels of a set, seeds, then prompt texts",
            "interval": f"effects {intervals.said(len(order))}; shares {intervals.said_jackknife(len(order), 'share')}",
            "note": "log2: 1 doubles the size. Of pooled and tokens only `moved` means something: every prompt is own once and "
            "other once, so that their mean effect is 0 whatever the text does",
        },
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


def _by_text(values: Array, groups: Array) -> Array:
    """(prompt, ...) to (text, ...)."""
    return np.stack([values[groups == number].mean(axis=0) for number in range(groups.max() + 1)])
