"""Massive channels: find them (`find(run)`), and their profile over blocks and tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from interp.analysis import criteria, intervals, sources
from interp.analysis.result import Estimate, result
from interp.base.errors import InputError
from interp.store.schema import Array

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
    size                             (stream, block, channel)   what it scores (mean |x| for most criteria)
    selected                         (stream, block, channel)   boolean
    frequency                        (stream, block, channel)   share of bootstrap resamples that select the channel
    runner_up                        (stream, block)            the largest score that was not selected: the control
    consensus, birth                 (stream, channel)          selected in at least half of the blocks from its first on;
                                                                that first block, -1 for none
    """
    rule = criteria.parse(criterion)
    axes = ("stream", "block", "channel")
    samples = sources.samples(sources.choose(rule.quantity(source), "step", steps, "steps")).transpose("prompt", *axes)
    score, low, high, size = (np.full(samples.shape[1:], np.nan) for _ in range(4))
    frequency, selected = np.zeros(score.shape), np.zeros(score.shape, bool)

    def one(place: tuple[int, ...]) -> None:
        values = samples.to_numpy()[:, place[0], place[1]]
        if np.isnan(values).any():
            return
        mean = values.mean(axis=0, keepdims=True, dtype=np.float64)
        score[place], size[place] = rule.score(mean)[0], mean[0]
        selected[place] = rule.selects(mean, score[place][None])[0]
        low[place], high[place], frequency[place] = _resampled(rule, values, resamples, seed)

    intervals.everywhere(one, score.shape[:2])
    agreed, birth = agree(selected, consensus, ~np.isnan(score).all(axis=-1))
    found = result(
        "massive",
        {
            "score": (axes, Estimate(score, low, high)),
            "size": (axes, size),
            "selected": (axes, selected),
            "frequency": (axes, frequency),
            "consensus": (("stream", "channel"), agreed),
            "birth": (("stream", "channel"), birth),
        },
        sources.along(samples, *axes),
        averaged_over="tokens, steps, then prompt texts",
        interval=intervals.said(samples.sizes["prompt"], resamples),
        control="runner_up: the largest score not selected",
        criterion=str(rule),
        source=rule.source,
        threshold="none" if rule.threshold is None else rule.threshold,
        consensus=consensus,
        steps="all" if steps is None else str(steps),
        **sources.facts_of(source),
    )
    return found.assign(runner_up=found["score"].where(~found["selected"]).max("channel"))


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
    if isinstance(source, xr.Dataset) and "mean_abs" not in source:
        if channels is None:
            raise InputError("channels must be given: these are hidden states alone, without statistics")
        data = source
    else:
        data = sources.statistics(source) if found is None else found
        sources.check_stream(data, stream)
    if channels is not None:
        return [int(channel) for channel in sources.choose(data["channel"], "channel", channels, "channels")]
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
    chosen, axes = channels_of(source, channels, stream), ("block", "channel")
    statistics = sources.statistics(source).sel(stream=stream)
    size = sources.samples(statistics["mean_abs"]).transpose("prompt", *axes)
    least = sources.samples(statistics["min_abs"].sel(channel=chosen)).mean("prompt", dtype=np.float64)
    everywhere = size.mean("prompt")
    median = everywhere.median("channel")
    return result(
        "profile",
        {
            "size": (axes, Estimate.mean(size.sel(channel=chosen).to_numpy())),
            "in_every_token": least / median,
            "median": median,
            "largest_other": everywhere.where(~everywhere["channel"].isin(chosen)).max("channel"),
        },
        {},
        averaged_over="tokens, steps, then prompt texts",
        interval=intervals.said(size.sizes["prompt"]),
        control="the median channel and the largest other one",
        stream=stream,
        channels=chosen,
        **sources.facts_of(source),
    )
