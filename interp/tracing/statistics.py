"""Reductions of a hidden state over its tokens, on its device. Pure torch."""

from __future__ import annotations

import torch
from torch import Tensor

STATISTICS = ("mean", "mean_abs", "max_abs", "min_abs", "var")
MEDIAN_SAMPLE = 8_192  # elements used for the median of a state


def token_mean(states: Tensor) -> Tensor:
    """Mean over tokens of (batch, token, channel): (batch, channel) float32, summed in float64 where the device has it."""
    wide = torch.float64 if states.device.type != "mps" else torch.float32
    return (states.sum(dim=1, dtype=wide) / states.shape[1]).float()


def token_statistics(states: Tensor) -> Tensor:
    """Statistics over tokens of (batch, token, channel): (batch, statistic, channel) float32, in `STATISTICS` order.

    Signed values are summed in float64, so that a mean near zero is accurate. The population variance uses two passes: the mean
    of a massive channel is so far from zero that E[x^2] - E[x]^2 loses all digits. Half-precision states are widened inside the
    reductions: a float32 copy of a full-size state costs more than the reductions.
    """
    magnitude = states.abs()
    mean = token_mean(states)
    var = (states - mean.unsqueeze(1)).square_().mean(dim=1).float()
    mean_abs, max_abs, min_abs = magnitude.mean(dim=1, dtype=torch.float32), magnitude.amax(dim=1), magnitude.amin(dim=1)
    return torch.stack([mean, mean_abs, max_abs.float(), min_abs.float(), var], dim=1)


def median_magnitude(states: Tensor) -> Tensor:
    """Median |x| over all elements of (batch, token, channel): (batch,) float32; of an even number the lower of the middle two.

    A larger state is sampled: at most `MEDIAN_SAMPLE` elements at a fixed stride over tokens and channels. The stride is odd,
    so that it does not hit the same channels repeatedly.
    """
    flat = states.flatten(1)
    stride = -(-flat.shape[1] // MEDIAN_SAMPLE) | 1
    return flat[:, ::stride].abs().float().median(dim=1).values
