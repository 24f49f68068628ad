"""Magnitude of massive channels along sampling: trend over timesteps, spread over prompts; DG Fig. 4b."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy import stats

from interp.analysis import intervals, massive, sources
from interp.analysis.result import Estimate, result
from interp.base.errors import InputError
from interp.store.schema import Array

ORDINARY = 64  # other channels that the control is taken over, at most


def over_timesteps(source: sources.Source, channels: Sequence[int] | str | None = None, *, stream: str = "image") -> xr.Dataset:
    """Mean |x| of channels at every step, its monotone trend, and its spread over prompts.

    size, size_low, size_high         (step, block, channel)   mean over prompts
    variation, _low, _high            (step, block, channel)   coefficient of variation over prompts at a fixed timestep
    trend, trend_low, trend_high      (block, channel)         Spearman rank correlation of size with the timestep, mean over
                                                               prompts: -1 grows as t falls to 0, as in DG for SD3
    ordinary_size                     (step, block)            the control: median over up to 64 other channels
    ordinary_variation, ordinary_trend
    """
    chosen = massive.channels_of(source, channels, stream)
    everything = sources.statistics(source)["mean_abs"].sel(stream=stream).transpose("prompt", "step", "block", "channel")
    if everything.sizes["step"] < 2:
        raise InputError("steps: a trend over timesteps needs at least two steps; this run has one")
    ordinary = np.setdiff1d(everything["channel"].to_numpy(), chosen)
    ordinary = ordinary[:: max(1, len(ordinary) // ORDINARY)][:ORDINARY]
    both = everything.sel(channel=[*chosen, *ordinary])
    magnitude = sources.by_text(both.copy(data=np.stack(list(sources.rows(both)))))
    values = magnitude.to_numpy()[..., : len(chosen)].astype(np.float64)
    others = magnitude.to_numpy()[..., len(chosen) :].astype(np.float64)
    timestep = magnitude["timestep"].to_numpy()
    axes, alone = ("step", "block", "channel"), values.shape[0] < 2
    moments = np.stack([values, values**2], axis=1)
    size, nothing = Estimate.mean(values), np.full(values.shape[1:], np.nan)
    spread = Estimate(nothing if alone else stats.variation(values), *intervals.bootstrap(moments, variation_of_moments))
    return result(
        "trend",
        {
            "size": (axes, size),
            "variation": (axes, spread),
            "trend": (axes[1:], Estimate.mean(rank_trend(values, timestep))),
            "ordinary_size": (axes[:2], _median(others.mean(axis=0))),
            "ordinary_variation": (axes[:2], nothing[..., 0] if alone else _median(stats.variation(others))),
            "ordinary_trend": (axes[1:2], _median(rank_trend(others, timestep).mean(axis=0))),
        },
        {str(name): c for name, c in magnitude.sel(channel=chosen).coords.items() if "prompt" not in c.dims},
        averaged_over="tokens, then prompt texts",
        interval=intervals.said(values.shape[0]),
        control=f"median over {len(ordinary)} other channels, evenly spaced",
        stream=stream,
        channels=chosen,
        **sources.facts_of(source),
    )


def _median(values: Array) -> Array:
    """Median over the last axis; NaN where it is empty, because every channel was selected."""
    return np.asarray(np.median(values, axis=-1)) if values.shape[-1] else np.full(values.shape[:-1], np.nan)


def variation_of_moments(moments: Array) -> Array:
    """Coefficient of variation from (resample, [mean, mean of squares], ...): a little smaller, as resamples repeat prompts."""
    mean, square = moments[:, 0], moments[:, 1]
    return np.asarray(np.sqrt(np.maximum(square - mean**2, 0)) / mean)


def rank_trend(values: Array, timestep: Array) -> Array:
    """Spearman correlation of (prompt, step, ...) with the timestep, per prompt: (prompt, ...); 0 where nothing changes,
    NaN for missing values.
    """
    ranks = stats.rankdata(values, axis=1)
    times = stats.rankdata(timestep).reshape(1, -1, *[1] * (values.ndim - 2))
    ranks, times = ranks - ranks.mean(axis=1, keepdims=True), times - times.mean()
    norm = np.sqrt((ranks**2).sum(axis=1) * (times**2).sum())
    found = np.divide((ranks * times).sum(axis=1), norm, out=np.zeros(norm.shape), where=norm > 0)
    return np.asarray(np.where(np.isnan(values).any(axis=1), np.nan, found))
