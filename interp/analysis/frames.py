"""Massive channels over the latent frames of a video, as STAS observes them (arXiv 2603.17825, its abstract).

There they are largest in the first frame, smaller at the boundaries of the others (a latent frame's first and last tokens),
smallest between them, and the order is clearest in early steps. The abstract does not state how many tokens a boundary has;
here it is a row of tokens at each end of a frame. Needs `Record(frames=True)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from interp.analysis import massive, sources
from interp.analysis.intervals import TINY, mean_of_texts
from interp.analysis.result import Estimate, result
from interp.analysis.sampled import Sampled
from interp.base.errors import InputError
from interp.base.streams import GENERATED
from interp.store.schema import Array

PARTS = ("first", "boundary", "interior")
THIRDS = ("early", "middle", "late")
CONTRASTS = ("first / boundary", "boundary / interior")
SETS = ("massive", "ordinary")
ORDINARY = 64  # random other channels, at most
DRAWS = 999  # random sets of them


def over_frames(
    source: sources.Source, channels: Sequence[int] | str | None = None, *, stream: str = GENERATED, seed: int = 0
) -> xr.Dataset:
    """Mean |x| of channels by latent frame and by part of a frame, over its mean over frames, in three parts of sampling.

    relative, _low, _high   (set, third, block, frame)      mean over channels and prompts; 1 in every frame: no pattern
    size, _low, _high       (set, third, block, part)       the first frame; ends and insides of the others; NaN without insides
    order, _low, _high      (contrast, set, third, block)   ratios of parts: geometric means
    beyond                  (contrast, third, block)        share of random sets of as many ordinary channels of such a ratio
    fade, fade_low, _high   (set, block)                    first / interior in the early third over that in the late one
    fade_beyond             (block)
    """
    stream = sources.stream_of(source, stream)
    data = sources.by_frame(source, stream)
    _check(data)
    if channels is None and not isinstance(source, xr.Dataset):
        chosen = massive.channels_of(source, None, stream)
    else:
        if channels is None:
            raise InputError("channels must be given: these are statistics of frames alone")
        chosen = [int(c) for c in sources.choose(data["channel"], "channel", channels, "channels")]
    draw, others = np.random.default_rng(seed), np.setdiff1d(data["channel"].to_numpy(), chosen)
    if len(others) < len(chosen):
        raise InputError(f"channels: the control needs as many others; {len(chosen)} of {data.sizes['channel']} were chosen")
    others = np.sort(draw.permutation(others)[:ORDINARY])
    whole, ends = (_by_third(data[name].sel(channel=[*chosen, *others])) for name in ("mean_abs", "edge_abs"))
    parts, count, units = _parts(whole, ends, int(data.attrs["rows"])), len(chosen), sources.units(data)
    mean = np.maximum(whole.mean(axis=3, keepdims=True), TINY)
    logs = np.log(np.maximum(parts, TINY))  # (row, third, block, part, channel)
    ratios = logs[..., :-1, :] - logs[..., 1:, :]
    fading = (logs[:, 0, ..., 0, :] - logs[:, 0, ..., 2, :]) - (logs[:, -1, ..., 0, :] - logs[:, -1, ..., 2, :])
    sets = _random_sets(len(others), count, draw) + count
    axes = ("set", "third", "block")
    return result(
        "frames",
        {
            "relative": ((*axes, "frame"), Estimate.mean(_of_sets(whole / mean, count), units)),
            "size": ((*axes, "part"), Estimate.mean(_of_sets(parts / mean, count), units)),
            "order": (("contrast", *axes), _ratio(np.moveaxis(_of_sets(ratios, count), -1, 1), units)),
            "beyond": (("contrast", "third", "block"), np.moveaxis(_beyond(ratios, count, sets, units), -1, 0)),
            "fade": (("set", "block"), _ratio(_of_sets(fading, count), units)),
            "fade_beyond": ("block", _beyond(fading, count, sets, units)),
        },
        {
            "set": list(SETS),
            "third": list(THIRDS),
            "part": list(PARTS),
            "contrast": list(CONTRASTS),
            **sources.along(data, "block", "frame"),
        },
        averaged_over="tokens, steps of a third, channels, then prompt texts",
        interval=units.said(),
        control=f"{len(others)} random other channels; beyond: {DRAWS} random sets of {count} of them",
        stream=stream,
        channels=chosen,
        **sources.facts_of(source),
    )


def _check(data: xr.Dataset) -> None:
    for axis, least, why in (("frame", 2, "the first one and others"), ("step", len(THIRDS), "one for each third of sampling")):
        if data.sizes[axis] < least:
            raise InputError(f"{axis}s: {least} or more are needed, {why}; this run has {data.sizes[axis]}")


def _by_third(data: xr.DataArray) -> Array:
    """Means over the steps of each third, (row, third, block, frame, channel), a row at a time."""
    ordered = data.transpose("prompt", "step", "block", "frame", "channel")
    parts = np.array_split(np.arange(data.sizes["step"]), len(THIRDS))
    return np.stack([[one[part].mean(axis=0, dtype=np.float64) for part in parts] for one in sources.rows(ordered)])


def _parts(whole: Array, ends: Array, rows: int) -> Array:
    """Mean |x| of the first frame, and of the others' ends and insides: (row, third, block, part, channel)."""
    share = min(2 / rows, 1.0)
    inside = (whole - share * ends) / (1 - share) if share < 1 else np.full(whole.shape, np.nan)
    return np.stack([whole[..., 0, :], ends[..., 1:, :].mean(axis=-2), inside[..., 1:, :].mean(axis=-2)], axis=-2)


def _of_sets(values: Array, count: int) -> Array:
    """Means over the chosen channels and over the others, of (row, ..., channel): (row, set, ...)."""
    return np.stack([values[..., :count].mean(axis=-1), values[..., count:].mean(axis=-1)], axis=1)


def _ratio(logs: Array, units: Sampled) -> Estimate:
    """Geometric means of ratios, given their logarithms, (row, ...)."""
    return Estimate.of_mean(logs, units, np.exp, "ratio")


def _random_sets(others: int, count: int, draw: np.random.Generator) -> Array:
    """Random sets of so many of the other channels, (draw, member)."""
    return np.argsort(draw.random((DRAWS, others)), axis=1)[:, :count]


def _beyond(logs: Array, count: int, sets: Array, units: Sampled) -> Array:
    """Share of the random sets, and of the chosen one, that reach the chosen channels' mean: of (row, ..., channel)."""
    means = mean_of_texts(logs, units)
    reached = [means[..., members].mean(axis=-1) >= means[..., :count].mean(axis=-1) for members in sets]
    found = (1 + np.sum(reached, axis=0)) / (1 + len(sets))
    return np.asarray(np.where(np.isnan(means).any(axis=-1), np.nan, found))
