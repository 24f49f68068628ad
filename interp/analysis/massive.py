"""Massive channels: find them (`find(run)`), and their profile over blocks and tokens."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import criteria, intervals, sources
from interp.analysis.result import Estimate, result
from interp.base.errors import InputError
from interp.base.streams import GENERATED
from interp.store.schema import Array

CONSENSUS = 0.5  # share of blocks, from a channel's first on
FEWEST_BLOCKS = 0.25  # of a stream's blocks, and two of them, below which there is no consensus
LEAST = 5.0  # times the median channel
SPARSE = 0.3  # share of tokens: a normal channel has 0.64, one that is equal in all tokens 1


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
    tokens                           (stream, block, channel)   share of the tokens that hold a selected channel's size: 1 if
                                                                all alike, 2 / 64 if two of 64 alone; NaN if not selected
    sparse                           (stream, block, channel)   selected by a few massive tokens alone (`kind_of`)
    selected_steps                   (stream, block, channel)   number of steps at which the criterion selects it by itself
    runner_up                        (stream, block)            the largest score that was not selected: the control
    consensus, birth                 (stream, channel)          selected and not sparse in enough blocks (`agree`); the first of
                                                                them, -1 for none
    massive_tokens                   (stream, channel)          the same for the sparse ones
    steps                            (stream, channel)          steps at which it is massive in enough blocks, such as "0-3, 7"
    """
    rule = criteria.parse(criterion)
    axes = ("stream", "block", "channel")
    quantity = sources.choose(rule.quantity(source), "step", steps, "steps").transpose("prompt", "step", *axes)
    samples, by_step = sources.over_steps_and_texts(quantity)
    units = sources.units(samples)
    size, estimate, selected, frequency, at_steps = _scored(
        rule, samples, by_step, intervals.resamples_of(units, resamples, seed)
    )
    score = estimate.value
    tokens, sparse = kind_of(source, selected, size, steps)
    present = ~np.isnan(score).all(axis=-1)
    agreed, birth = agree(selected & ~sparse, consensus, present)
    in_tokens, _ = agree(selected & sparse, consensus, present)
    when = np.stack([agree(here, consensus, present)[0] for here in at_steps])  # (step, stream, channel)
    names = quantity["step"].to_numpy().astype(int).tolist()
    found = result(
        "massive",
        {
            "score": (axes, estimate),
            "size": (axes, size),
            "selected": (axes, selected),
            "frequency": (axes, frequency),
            "tokens": (axes, tokens),
            "sparse": (axes, sparse),
            "selected_steps": (axes, at_steps.sum(axis=0)),
            "consensus": (("stream", "channel"), agreed),
            "birth": (("stream", "channel"), birth),
            "massive_tokens": (("stream", "channel"), in_tokens),
            "steps": (("stream", "channel"), _ranges(when, names)),
        },
        sources.along(samples, *axes),
        averaged_over="tokens, steps, then prompt texts",
        interval=f"score: {units.said()}; frequency: {resamples} bootstrap resamples",
        control="runner_up: the largest score not selected",
        criterion=str(rule),
        source=rule.source,
        threshold="none" if rule.threshold(score.shape[-1]) is None else rule.threshold(score.shape[-1]),
        consensus=consensus,
        steps="all" if steps is None else str(steps),
        step_count=len(names),
        text_tokens=sources.counted_tokens(quantity),
        **sources.facts_of(source),
    )
    return found.assign(runner_up=found["score"].where(~found["selected"]).max("channel"))


def _scored(
    rule: criteria.Criterion, samples: xr.DataArray, by_step: Array, weights: Array
) -> tuple[Array, Estimate, Array, Array, Array]:
    """Of every stream, block and channel: size, score, whether selected, in which share of the resamples, at which steps."""
    units = sources.units(samples)
    score, low, high, size = (np.full(samples.shape[1:], np.nan) for _ in range(4))
    frequency, selected = np.zeros(score.shape), np.zeros(score.shape, bool)
    at_steps = np.zeros(by_step.shape, bool)  # (step, stream, block, channel)

    def one(place: tuple[int, ...]) -> None:
        values = samples.to_numpy()[:, place[0], place[1]]
        own: Any = (*place, slice(int((~np.isnan(values).all(axis=0)).sum())))  # a narrow stream has fewer channels
        values = values[:, own[2]]
        if not values.size or np.isnan(values).any():
            return
        mean = intervals.mean_of_texts(values.astype(np.float64), units)[None]
        score[own], size[own] = rule.score(mean)[0], mean[0]
        selected[own] = rule.selects(mean, score[own][None])[0]
        low[own], high[own] = intervals.interval(values, units, rule.score, rough=True)
        steps_here = by_step[(slice(None), *own)]
        at_steps[(slice(None), *own)] = rule.selects(steps_here, rule.score(steps_here))
        if len(weights):
            means = intervals.means(weights, values, units)
            frequency[own] = rule.selects(means, rule.score(means)).mean(axis=0)

    intervals.everywhere(one, score.shape[:2])
    return size, Estimate(score, low, high), selected, frequency, at_steps


def kind_of(
    source: sources.Source, selected: Array, size: Array, steps: Sequence[int] | str | None = None
) -> tuple[Array, Array]:
    """In which share of the tokens selected channels are large, and which of them are massive in a few tokens alone.

    The share is (mean |x|)^2 / E[x^2] over tokens: 1 / N for one of N tokens, 1 for all alike; the mean over samples. A channel
    below `SPARSE` is sparse unless the rest of its tokens, mean |x| - E[x^2] / max |x|, is also far above the median channel:
    then it is a massive channel with massive tokens. NaN and False where a source has no variances.
    """
    share, sparse = np.full(selected.shape, np.nan), np.zeros(selected.shape, bool)
    kept = np.flatnonzero(selected.any(axis=(0, 1)))
    if not len(kept):
        return share, sparse
    statistics = sources.statistics(source)
    if not {"mean", "var", "max_abs"} <= set(statistics.data_vars):
        return share, sparse
    here = sources.choose(statistics[["mean", "mean_abs", "max_abs", "var"]].isel(channel=kept), "step", steps, "steps")
    square = criteria.energy_of(here)
    held = here["mean_abs"] ** 2 / square
    rest = here["mean_abs"] - square / here["max_abs"]
    axes = ("stream", "block", "channel")
    share[..., kept], others = (sources.by_text(sources.over_steps(v)).mean("prompt").transpose(*axes) for v in (held, rest))
    share = np.where(selected, share, np.nan)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All-NaN")  # a block without the stream
        sparse[..., kept] = others.to_numpy() < LEAST * np.nanmedian(size, axis=-1, keepdims=True)
        return share, selected & (share < SPARSE) & sparse


def _ranges(when: Array, steps: Sequence[int]) -> Array:
    """The steps of (step, ...) booleans as text, such as "0-3, 7"."""
    found = np.full(when.shape[1:], "", object)
    for place in zip(*np.nonzero(when.any(axis=0)), strict=True):
        here = np.flatnonzero(when[(slice(None), *place)])
        runs = np.split(here, np.flatnonzero(np.diff(here) > 1) + 1)
        found[place] = ", ".join(f"{steps[r[0]]}-{steps[r[-1]]}" if len(r) > 1 else f"{steps[r[0]]}" for r in runs)
    return found


def agree(selected: Array, share: float, present: Array | None = None) -> tuple[Array, Array]:
    """Consensus over blocks of (stream, block, channel): selected in at least `share` of the blocks from its first on, and in a
    quarter of the stream's blocks and two of them, or all that it has; blocks without the stream (`present`, (stream, block))
    do not count.
    """
    blocks = selected.shape[1]
    any_block = selected.any(axis=1)
    first = np.where(any_block, selected.argmax(axis=1), blocks)
    there = np.ones(selected.shape[:2], bool) if present is None else present
    later = there[:, :, None] & (np.arange(blocks)[:, None] >= first[:, None, :])
    own = there.sum(axis=1)[:, None]
    least = np.minimum(np.maximum(np.ceil(FEWEST_BLOCKS * own), 2), own)
    count = selected.sum(axis=1)
    agreed = any_block & (count >= share * later.sum(axis=1)) & (count >= least)
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
        stream = sources.check_stream(data, stream)
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


def profile(source: sources.Source, channels: Sequence[int] | str | None = None, *, stream: str = GENERATED) -> xr.Dataset:
    """Over blocks: size of the channels, of the median channel and of the largest other one; DG Figs. 3a, 10-12.

    size, size_low, size_high        (block, channel)   mean |x| over tokens, steps and prompts
    in_every_token                   (block, channel)   min |x| over tokens, averaged likewise, over the median's mean |x|
    median, largest_other            (block)            the control
    """
    stream = sources.stream_of(source, stream)
    chosen, axes = channels_of(source, channels, stream), ("block", "channel")
    statistics = sources.statistics(source).sel(stream=stream)
    size = sources.over_steps(statistics["mean_abs"]).transpose("prompt", *axes)
    units = sources.units(size)
    least = sources.by_text(sources.over_steps(statistics["min_abs"].sel(channel=chosen))).mean("prompt", dtype=np.float64)
    everywhere = sources.by_text(size).mean("prompt")
    median = everywhere.median("channel")
    return result(
        "profile",
        {
            "size": (axes, Estimate.mean(size.sel(channel=chosen).to_numpy(), units)),
            "in_every_token": least / median,
            "median": median,
            "largest_other": everywhere.where(~everywhere["channel"].isin(chosen)).max("channel"),
        },
        {},
        averaged_over="tokens, steps, then prompt texts",
        interval=units.said(),
        control="the median channel and the largest other one",
        stream=stream,
        channels=chosen,
        **sources.facts_of(source),
    )
