"""Reductions of a hidden state over its tokens, on whatever device it is. Pure torch."""

from __future__ import annotations

import torch
from torch import Tensor

STATISTICS = ("mean", "mean_abs", "max_abs", "min_abs", "var")
MEDIAN_SAMPLE = 8_192  # elements a state's median is taken over


def token_statistics(states: Tensor) -> Tensor:
    """Statistics over tokens of (batch, token, channel): (batch, statistic, channel) float32, in `STATISTICS` order.

    Signed values are summed in float64: a mean near zero keeps its digits. The variance is the population variance, in two
    passes: a massive channel's mean is so far from zero that E[x^2] - E[x]^2 would lose every digit. States of half precision
    are widened in the reductions, not copied: at full size the copy cost more than the reductions.
    """
    magnitude = states.abs()
    wide = torch.float64 if states.device.type != "mps" else torch.float32
    mean = (states.sum(dim=1, dtype=wide) / states.shape[1]).float()
    var = (states - mean.unsqueeze(1)).square_().mean(dim=1).float()
    mean_abs, max_abs, min_abs = magnitude.mean(dim=1, dtype=torch.float32), magnitude.amax(dim=1), magnitude.amin(dim=1)
    return torch.stack([mean, mean_abs, max_abs.float(), min_abs.float(), var], dim=1)


def median_magnitude(states: Tensor) -> Tensor:
    """Median |x| over all elements of (batch, token, channel): (batch,) float32.

    Of a larger state, at most `MEDIAN_SAMPLE` elements a fixed distance apart, counted through tokens and channels; the
    distance is odd, so that it does not keep meeting the same channels.
    """
    flat = states.flatten(1)
    stride = -(-flat.shape[1] // MEDIAN_SAMPLE) | 1
    return flat[:, ::stride].abs().float().median(dim=1).values
