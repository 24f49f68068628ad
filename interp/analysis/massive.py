"""Which channels are massive: `find(run)`; their profile over blocks, and whether they are so in every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from interp.analysis import criteria, intervals, sources
from interp.base.errors import InputError

Array = NDArray[Any]
CONSENSUS = 0.5  # share of blocks, from a channel's first on


def find(
    source: sources.Source,
    criterion: str | criteria.Criterion = "robust",
    *,
    steps: Sequence[int] | str | None = None,
    resamples: int = intervals.RESAMPLES,
    consensus: float = CONSENSUS,
    seed: int = 0,
) -> xr.Dataset:
    """Massive channels of every block and stream, and a consensus over blocks.

    score, score_low, score_high     (stream, block, channel)   the criterion's score, averaged over steps and prompts
    size                             (stream, block, channel)   what it scores (mean |x| unless the criterion says otherwise)
    selected                         (stream, block, channel)   boolean
    frequency                        (stream, block, channel)   share of bootstrap resamples that select the channel
    runner_up                        (stream, block)            the largest score that was not selected: the control
    consensus, birth                 (stream, channel)          selected in at least half of the blocks from its first on;
                                                                that first block, -1 for none
    """
    rule = criteria.parse(criterion)
    samples = sources.over_steps(sources.choose(rule.quantity(source), "step", steps, "steps"))
    samples = sources.by_text(samples).transpose("prompt", "stream", "block", "channel")
    axes = ("stream", "block", "channel")
    found = {
        name: np.full([samples.sizes[axis] for axis in axes], np.nan) for name in ("score", "score_low", "score_high", "size")
    }
    frequency, selected = np.zeros(found["score"].shape), np.zeros(found["score"].shape, bool)

    def one(place: tuple[int, ...]) -> None:
        values = samples.to_numpy()[:, place[0], place[1]]
        if np.isnan(values).any():
            return
        mean = values.mean(axis=0, keepdims=True, dtype=np.float64)
        found["score"][place], found["size"][place] = rule.score(mean)[0], mean[0]
        selected[place] = rule.selects(mean, found["score"][place][None])[0]
        low, high, often = _resampled(rule, values, resamples, seed)
        found["score_low"][place], found["score_high"][place], frequency[place] = low, high, often

    intervals.everywhere(one, found["score"].shape[:2])
    coordinates = {name: c for name, c in samples.coords.items() if "prompt" not in c.dims}
    result = xr.Dataset({name: (axes, value) for name, value in found.items()}, coordinates)
    result["selected"], result["frequency"] = (axes, selected), (axes, frequency)
    result["runner_up"] = result["score"].where(~result["selected"]).max("channel")
    agreed, birth = agree(selected, consensus, ~np.isnan(found["score"]).all(axis=-1))
    result["consensus"], result["birth"] = (("stream", "channel"), agreed), (("stream", "channel"), birth)
    return result.assign_attrs(
        analysis="massive",
        criterion=str(rule),
        source=rule.source,
        threshold="none" if rule.threshold is None else rule.threshold,
        consensus=consensus,
        averaged_over="tokens, steps, then prompt texts",
        steps="all" if steps is None else str(steps),
        interval=intervals.said(samples.sizes["prompt"], resamples),
        control="runner_up: the largest score not selected",
        **sources.facts_of(source),
    )


def _resampled(rule: criteria.Criterion, values: Array, resamples: int, seed: int) -> tuple[Array, Array, Array]:
    """Interval of the score, and how often a resample of the prompts selects each channel."""
    often, count = np.zeros(values.shape[1]), 0

    def function(means: Array) -> Array:
        nonlocal often, count
        scores = rule.score(means)
        often, count = often + rule.selects(means, scores).sum(axis=0), count + len(means)
        return scores

    low, high = intervals.bootstrap(values, function, resamples=resamples, seed=seed)
    return low, high, often / count


def agree(selected: Array, share: float, present: Array | None = None) -> tuple[Array, Array]:
    """Consensus over blocks of (stream, block, channel): selected in at least `share` of the blocks from the first on; blocks
    that do not have the stream (`present`, (stream, block)) do not count.
    """
    blocks = selected.shape[1]
    any_block = selected.any(axis=1)
    first = np.where(any_block, selected.argmax(axis=1), blocks)
    there = np.ones(selected.shape[:2], bool) if present is None else present
    later = there[:, :, None] & (np.arange(blocks)[:, None] >= first[:, None, :])
    count = selected.sum(axis=1) / np.maximum(later.sum(axis=1), 1)
    agreed = any_block & (count >= share)
    return agreed, np.where(agreed, first, -1)


def channels_of(
    source: sources.Source, channels: Sequence[int] | str | None, stream: str, found: xr.Dataset | None = None
) -> list[int]:
    """The channels given, checked; or, where none are, the stream's consensus of `find(source)`."""
    statistics = sources.statistics(source) if found is None else found
    sources.check_stream(statistics, stream)
    if channels is not None:
        chosen = sources.choose(statistics["channel"], "channel", channels, "channels")
        return [int(channel) for channel in np.atleast_1d(chosen.to_numpy())]
    found = find(source, resamples=0) if found is None else found
    agreed = found["consensus"].sel(stream=stream).to_numpy()
    if not agreed.any():
        raise InputError(
            f"channels must be given: no channel of the {stream} stream is massive by {found.attrs['criterion']} "
            "(channels=[...] or --channels 1,2; another --criterion may select some)"
        )
    return [int(channel) for channel in found["channel"].to_numpy()[agreed]]


def profile(source: sources.Source, channels: Sequence[int] | str | None = None, *, stream: str = "image") -> xr.Dataset:
    """Over blocks: size of the channels, of the median channel and of the largest other one; DG Figs. 3a, 10-12.

    size, size_low, size_high        (block, channel)   mean |x| over tokens, steps and prompts
    in_every_token                   (block, channel)   min |x| over tokens, averaged likewise, over the median's mean |x|
    median, largest_other            (block)            the control
    """
    chosen = channels_of(source, channels, stream)
    statistics = sources.statistics(source).sel(stream=stream)
    size = sources.by_text(sources.over_steps(statistics["mean_abs"]))
    everywhere = size.mean("prompt")
    low, high = intervals.bootstrap(size.sel(channel=chosen).transpose("prompt", "block", "channel").to_numpy())
    least = sources.by_text(sources.over_steps(statistics["min_abs"].sel(channel=chosen))).mean("prompt", dtype=np.float64)
    median = everywhere.median("channel")
    axes = ("block", "channel")
    return xr.Dataset(
        {
            "size": everywhere.sel(channel=chosen),
            "size_low": (axes, low),
            "size_high": (axes, high),
            "in_every_token": least / median,
            "median": median,
            "largest_other": everywhere.where(~everywhere["channel"].isin(chosen)).max("channel"),
        },
        attrs={
            "analysis": "profile",
            "stream": stream,
            "channels": chosen,
            "averaged_over": "tokens, steps, then prompt texts",
            "interval": intervals.said(size.sizes["prompt"]),
            "control": "the median channel and the largest other one",
            **sources.facts_of(source),
        },
    )
