"""Magnitude of massive channels along sampling: trend over timesteps, spread over prompts; DG Fig. 4b."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy import stats

from interp.analysis import intervals, massive, sampled, sources
from interp.analysis.result import Estimate, result
from interp.base.errors import InputError
from interp.base.streams import GENERATED
from interp.store.schema import Array

ORDINARY = 64  # other channels that the control is taken over, at most


def over_timesteps(
    source: sources.Source, channels: Sequence[int] | str | None = None, *, stream: str = GENERATED
) -> xr.Dataset:
    """Mean |x| of channels at every step, its monotone trend, and its spread over prompts.

    size, size_low, size_high         (step, block, channel)   mean over prompts
    variation, _low, _high            (step, block, channel)   coefficient of variation over prompts at one timestep
    trend, trend_low, trend_high      (block, channel)         Spearman rank correlation of size with the timestep, mean over
                                                               prompts: -1 grows as t falls to 0, as in DG for SD3
    ordinary_size                     (step, block)            the control: median over up to 64 other channels
    ordinary_variation, ordinary_trend
    """
    stream = sources.stream_of(source, stream)
    chosen = massive.channels_of(source, channels, stream)
    everything = sources.statistics(source)["mean_abs"].sel(stream=stream).transpose("prompt", "step", "block", "channel")
    if everything.sizes["step"] < 2:
        raise InputError("steps: a trend over timesteps needs at least two steps; this run has one")
    ordinary = np.setdiff1d(everything["channel"].to_numpy(), chosen)
    ordinary = ordinary[:: max(1, len(ordinary) // ORDINARY)][:ORDINARY]
    both = everything.sel(channel=[*chosen, *ordinary])
    magnitude = both.copy(data=np.stack(list(sources.rows(both))))
    units = sources.units(magnitude)
    values = magnitude.to_numpy()[..., : len(chosen)].astype(np.float64)
    others = magnitude.to_numpy()[..., len(chosen) :].astype(np.float64)
    timestep = magnitude["timestep"].to_numpy()
    axes = ("step", "block", "channel")
    return result(
        "trend",
        {
            "size": (axes, Estimate.mean(values, units)),
            "variation": (axes, variation(values, units)),
            "trend": (axes[1:], Estimate.of_mean(rank_trend(values, timestep), units, lambda mean: mean, "correlation")),
            "ordinary_size": (axes[:2], _median(intervals.mean_of_texts(others, units))),
            "ordinary_variation": (axes[:2], _median(variation(others, units).value)),
            "ordinary_trend": (axes[1:2], _median(intervals.mean_of_texts(rank_trend(others, timestep), units))),
        },
        {str(name): c for name, c in magnitude.sel(channel=chosen).coords.items() if "prompt" not in c.dims},
        averaged_over="tokens, then prompt texts",
        interval=units.said(),
        control=f"median over {len(ordinary)} other channels, evenly spaced",
        stream=stream,
        channels=chosen,
        **sources.facts_of(source),
    )


def _median(values: Array) -> Array:
    """Median over the last axis; NaN where it is empty, because every channel was selected."""
    return np.asarray(np.median(values, axis=-1)) if values.shape[-1] else np.full(values.shape[:-1], np.nan)


def variation(sizes: Array, units: sampled.Sampled) -> Estimate:
    """Coefficient of variation over texts of sizes above 0, (row, ...): sqrt(exp(v) - 1), where v is the variance of their
    logarithms. That of a lognormal, and of any other to second order; its interval covers where sizes are skewed.
    """
    logs = intervals.by_text(np.log(np.maximum(sizes, intervals.TINY)), units)
    count = len(logs)
    if count < 2:
        return Estimate(*[np.full(sizes.shape[1:], np.nan)] * 3)

    def spread(means: Array) -> Array:
        variance = np.maximum(means[:, 1] - means[:, 0] ** 2, 0.0) * count / (count - 1)
        return np.asarray(np.sqrt(np.expm1(variance)))

    centred = logs - logs.mean(axis=0)
    return Estimate.of_mean(np.stack([centred, centred**2], axis=1), sampled.Sampled.single(count), spread, "ratio")


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
