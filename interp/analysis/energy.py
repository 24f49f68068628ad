"""Shares of energy of the largest channels, and their effect on token norms and on quantisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import intervals, massive, sources
from interp.analysis.criteria import energy_of
from interp.analysis.result import Estimate, result
from interp.base.errors import InputError
from interp.base.streams import GENERATED
from interp.store.schema import Array

KS = (1, 2, 4, 8, 16, 32)
HIGH_NORM = 3.0  # times the median token


def shares(source: sources.Source, *, stream: str = GENERATED, ks: Sequence[int] = KS) -> xr.Dataset:
    """Share of the energy E[x^2] that the k most energetic channels hold, and the Gini coefficients; SPARK.

    share, share_low, share_high   (k, block)    an even split would give k / channels: `even`
    gini                           (block)       of all channels' energies; 0 even, 1 all in one
    gini_top                       (block)       of the 32 most energetic channels alone
    """
    stream = sources.stream_of(source, stream)
    samples = sources.over_steps(energy_of(sources.statistics(source, stream))).transpose("prompt", "block", "channel")
    units = sources.units(samples)
    values, channels = samples.to_numpy(), samples.sizes["channel"]
    kept = [k for k in ks if k <= channels]

    def held(means: Array) -> Array:
        ordered = -np.sort(-means, axis=-1)
        sums = ordered.cumsum(axis=-1)
        return np.asarray(np.moveaxis(sums[..., [k - 1 for k in kept]] / sums[..., -1:], -1, 1))

    mean = intervals.mean_of_texts(values, units)
    return result(
        "energy",
        {
            "share": (("k", "block"), Estimate.of_mean(values, units, held, "share")),
            "even": ("k", np.array(kept) / channels),
            "gini": ("block", gini(mean)),
            "gini_top": ("block", gini(-np.sort(-mean, axis=-1)[..., :32])),
        },
        {"k": kept, **sources.along(samples, "block")},
        averaged_over="tokens, steps, then prompt texts",
        interval=units.said("share"),
        control="even: every channel holds the same",
        stream=stream,
        **sources.facts_of(source),
    )


def gini(values: Array) -> Array:
    """Gini coefficient along the last axis of non-negative values."""
    ordered = np.sort(values, axis=-1)
    count = ordered.shape[-1]
    ranks = 2 * np.arange(1, count + 1) - count - 1
    return np.asarray((ranks * ordered).sum(axis=-1) / (count * ordered.sum(axis=-1)))


def token_norms(source: sources.Source, channels: Sequence[int] | str | None = None, *, stream: str = GENERATED) -> xr.Dataset:
    """Token norms with and without the channels: whether they alone make high-norm tokens. Needs hidden states.

    norm, excised           (prompt, step, block, token)   L2 norm of all channels, and of the others alone
    high, high_excised      (step, block)                  share of tokens above three times their sample's median norm
    random_excised          (step, block)                  the same without as many random other channels: the control
    correlation, _low, _high (step, block)                 of norm and excised over tokens, mean over prompts
    """
    stream = sources.stream_of(source, stream)
    chosen = massive.channels_of(source, channels, stream)
    states = sources.hidden(source, stream).astype(np.float64)
    missing = [channel for channel in chosen if channel not in states["channel"].to_numpy()]
    if missing:
        raise InputError(f"channels must be among those of the stored hidden states; {missing[0]} was not recorded")
    if not isinstance(source, xr.Dataset) and states.sizes["channel"] < sources.statistics(source).sizes["channel"]:
        raise InputError(
            f"channels: token norms need all channels of the hidden states; {states.sizes['channel']} were recorded "
            "(trace with record=Record(hidden=Select(...)) without channels)"
        )
    others = states["channel"].to_numpy()[~np.isin(states["channel"].to_numpy(), chosen)]
    random = np.random.default_rng(0).choice(others, min(len(chosen), len(others)), replace=False)
    square = (states**2).sum("channel")
    norms = xr.Dataset({"norm": np.sqrt(square)})
    for name, left_out in (("excised", chosen), ("random", list(random))):
        norms[name] = np.sqrt(np.maximum(square - (states.sel(channel=left_out) ** 2).sum("channel"), 0.0))
    norms = norms.compute()
    high = (norms > HIGH_NORM * norms.median("token")).mean(("prompt", "token"))
    correlation = xr.corr(norms["norm"], norms["excised"], "token").transpose("prompt", "step", "block")
    units = sources.units(correlation)
    return result(
        "token_norms",
        {
            "norm": norms["norm"],
            "excised": norms["excised"],
            "high": high["norm"],
            "high_excised": high["excised"],
            "random_excised": high["random"],
            "correlation": (("step", "block"), Estimate.mean(correlation.to_numpy(), units)),
        },
        {},
        averaged_over="high: prompts and tokens; correlation: prompts",
        interval=units.said(),
        control="random_excised: as many random other channels taken out",
        stream=stream,
        channels=chosen,
        **sources.facts_of(source),
    )


def outliers(source: sources.Source, *, stream: str = GENERATED, strength: float = 0.5) -> xr.Dataset:
    """For quantisation and caching work: maxima per channel, and SmoothQuant-style scales of the activations.

    largest               (block, channel)  max |x| over tokens, steps and prompts
    scale                 (block, channel)  max |x| ** strength, over its geometric mean: SmoothQuant's (arXiv 2211.10438)
                                            without its weights' part, which a store does not hold
    dynamic_range         (block)           largest over the median channel's largest: what one scale a tensor must span
    smoothed_range        (block)           the same after division by `scale`
    over_steps            (block, channel)  largest over steps / smallest over steps, of max |x|: how much a cached scale drifts
    token_largest         (block, token)    max |x| over channels, steps and prompts, where hidden states are stored
    """
    stream = sources.stream_of(source, stream)
    per_step = sources.statistics(source, stream)["max_abs"].max("prompt").compute().astype(np.float64)
    largest = per_step.max("step")
    with np.errstate(divide="ignore"):
        logs: xr.DataArray = strength * xr.apply_ufunc(np.log, largest)
    scale = np.exp(logs - logs.mean("channel"))
    smoothed = largest / scale
    found: dict[str, Any] = {
        "largest": largest,
        "scale": scale,
        "dynamic_range": largest.max("channel") / largest.median("channel"),
        "smoothed_range": smoothed.max("channel") / smoothed.median("channel"),
        "over_steps": largest / per_step.min("step"),
    }
    if not isinstance(source, xr.Dataset) and source.plan.get("record", {}).get("hidden") and stream in source.hidden.children:
        tokens = abs(sources.hidden(source, stream)).max(("channel", "step", "prompt")).compute()
        found["token_largest"] = tokens.reset_coords(drop=True).reindex(block=largest["block"].to_numpy())
    return result(
        "outliers",
        found,
        {},
        averaged_over="nothing: maxima over tokens, steps and prompts",
        interval="none: a maximum grows with the number of samples",
        control="dynamic_range is against the median channel",
        stream=stream,
        strength=strength,
        **sources.facts_of(source),
    )


def surface(source: sources.Source, *, step: int | None = None, block: int = -1, stream: str = GENERATED) -> xr.DataArray:
    """|x| of a block's state, (token, channel), averaged over prompts at one step (the first stored): DG Fig. 2. Needs hidden
    states.
    """
    stream = sources.stream_of(source, stream)
    states = sources.hidden(source, stream)
    here = sources.at(states, block=block, step=int(states["step"][0]) if step is None else step)
    magnitude: xr.DataArray = abs(here).mean("prompt").compute().rename("magnitude")
    return magnitude.assign_attrs(analysis="surface", averaged_over="prompts", long_name="mean |hidden|")
