"""One read of a hidden state on a card: five statistics over tokens in one Triton kernel, and one that merges its parts.

A program reads a range of tokens of some channels in tiles. It merges the tiles, and the second kernel the programs, by the
formula of Chan, Golub and LeVeque (1979). Channels alone would leave most of a card idle, so tokens are split too. The mean of
a channel's first tokens is subtracted from all: a massive channel's mean is so far from zero that its rounding would hide the
variance.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

CHANNELS, TOKENS = 64, 32  # of a tile
FIRST = 4  # tokens whose mean is subtracted
STATISTICS = 5
PROGRAMS = 512  # at least, where there are tokens enough: an H200 has 132 multiprocessors


@triton.jit  # type: ignore[untyped-decorator]
def _merge(mean: Any, spread: Any, count: Any, mean_b: Any, spread_b: Any, count_b: Any) -> Any:
    """Mean, sum of squared deviations and count of two parts."""
    total = count + count_b
    share = tl.where(total > 0, count_b / tl.maximum(total, 1.0), 0.0)
    delta = mean_b - mean
    return mean + delta * share, spread + spread_b + delta * delta * count * share, total


@triton.jit  # type: ignore[untyped-decorator]
def _pivot(states: Any, tokens: Any, by_token: Any, FIRST: tl.constexpr) -> Any:
    """The mean of the first tokens of some channels; `states` points at them in the first token."""
    token = tl.arange(0, FIRST)
    value = tl.load(states[None, :] + token[:, None] * by_token, mask=(token < tokens)[:, None], other=0.0).to(tl.float32)
    return tl.sum(value, axis=0) / tl.minimum(tokens, FIRST)


@triton.jit  # type: ignore[untyped-decorator]
def _nothing(WIDTH: tl.constexpr) -> Any:
    """Mean, squared deviations, count, sum |x|, max |x| and min |x| of no tokens."""
    zero = tl.zeros([WIDTH], tl.float32)
    return zero, zero, zero, zero, zero, tl.full([WIDTH], float("inf"), tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _parts(
    states: Any,
    found: Any,
    tokens: Any,
    channels: Any,
    by_row: Any,
    by_token: Any,
    by_channel: Any,
    each: Any,
    batch: Any,
    TILE: tl.constexpr,
    WIDTH: tl.constexpr,
    FIRST: tl.constexpr,
) -> None:
    """(batch, token, channel) -> (part, statistic, batch, channel): mean, sum |x|, max |x|, min |x|, squared deviations."""
    row, part = tl.program_id(2).to(tl.int64), tl.program_id(1)
    channel = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside = channel < channels
    mean, spread, count, size, largest, smallest = _nothing(WIDTH)
    first = part * each
    pivot = _pivot(states + row * by_row + tl.minimum(channel, channels - 1).to(tl.int64) * by_channel, tokens, by_token, FIRST)
    for start in range(0, each, TILE):
        token = first + start + tl.arange(0, TILE)
        kept = ((token < tokens) & (start + tl.arange(0, TILE) < each))[:, None] & inside[None, :]
        place = row * by_row + token[:, None].to(tl.int64) * by_token + channel[None, :].to(tl.int64) * by_channel
        value = tl.load(states + place, mask=kept, other=0.0).to(tl.float32)
        magnitude = tl.abs(value)
        here = tl.sum(kept.to(tl.float32), axis=0)
        value = tl.where(kept, value - pivot[None, :], 0.0)
        own = tl.sum(value, axis=0) / tl.maximum(here, 1.0)
        away = tl.where(kept, value - own[None, :], 0.0)
        mean, spread, count = _merge(mean, spread, count, own, tl.sum(away * away, axis=0), here)
        size += tl.sum(magnitude, axis=0)
        largest = tl.maximum(largest, tl.max(magnitude, axis=0))
        smallest = tl.minimum(smallest, tl.min(tl.where(kept, magnitude, float("inf")), axis=0))
    place = found + (part * 5 * batch + row) * channels + channel
    step = batch * channels
    tl.store(place, mean, mask=inside)
    tl.store(place + step, size, mask=inside)
    tl.store(place + 2 * step, largest, mask=inside)
    tl.store(place + 3 * step, smallest, mask=inside)
    tl.store(place + 4 * step, spread, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _whole(
    states: Any,
    by_row: Any,
    by_token: Any,
    by_channel: Any,
    parts: Any,
    found: Any,
    tokens: Any,
    channels: Any,
    each: Any,
    batch: Any,
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
    FIRST: tl.constexpr,
) -> None:
    """(part, statistic, batch, channel) -> (batch, statistic, channel)."""
    row = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside = channel < channels
    mean, spread, count, size, largest, smallest = _nothing(WIDTH)
    step = batch * channels
    for part in range(COUNT):
        place = parts + (part * 5 * batch + row) * channels + channel
        here = tl.zeros([WIDTH], tl.float32) + tl.minimum(each, tokens - part * each)
        own = tl.load(place, mask=inside, other=0.0)
        mean, spread, count = _merge(mean, spread, count, own, tl.load(place + 4 * step, mask=inside, other=0.0), here)
        size += tl.load(place + step, mask=inside, other=0.0)
        largest = tl.maximum(largest, tl.load(place + 2 * step, mask=inside, other=0.0))
        smallest = tl.minimum(smallest, tl.load(place + 3 * step, mask=inside, other=0.0))
    size = size / tokens
    bad = size != size  # the hardware's maximum leaves NaN out
    pivot = _pivot(states + row * by_row + tl.minimum(channel, channels - 1).to(tl.int64) * by_channel, tokens, by_token, FIRST)
    out = found + row * 5 * channels + channel
    tl.store(out, mean + pivot, mask=inside)
    tl.store(out + channels, size, mask=inside)
    tl.store(out + 2 * channels, tl.where(bad, size, largest), mask=inside)
    tl.store(out + 3 * channels, tl.where(bad, size, smallest), mask=inside)
    tl.store(out + 4 * channels, spread / tokens, mask=inside)


def token_statistics(states: Tensor) -> Tensor:
    """(batch, token, channel) -> (batch, statistic, channel) float32, in the order of `statistics.STATISTICS`."""
    batch, tokens, channels = states.shape
    columns = triton.cdiv(channels, CHANNELS)
    wanted = max(1, min(triton.cdiv(PROGRAMS, columns * batch), triton.cdiv(tokens, TOKENS)))
    each = triton.cdiv(triton.cdiv(tokens, wanted), TOKENS) * TOKENS
    count = triton.cdiv(tokens, each)
    parts = torch.empty((count, STATISTICS, batch, channels), dtype=torch.float32, device=states.device)
    found = torch.empty((batch, STATISTICS, channels), dtype=torch.float32, device=states.device)
    # Triton launches on the current device, whatever the tensors' is
    with torch.cuda.device(states.device) if states.is_cuda else contextlib.nullcontext():
        _parts[(columns, count, batch)](
            states, parts, tokens, channels, *states.stride(), each, batch, TILE=TOKENS, WIDTH=CHANNELS, FIRST=FIRST
        )
        _whole[(columns, batch)](
            states,
            *states.stride(),
            parts,
            found,
            tokens,
            channels,
            each,
            batch,
            COUNT=count,
            WIDTH=CHANNELS,
            FIRST=FIRST,
        )
    return found
