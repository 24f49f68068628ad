"""Metrics of single pictures and of pairs, without weights: SSIM and PSNR (torchmetrics), edges, colour statistics.

Pictures are (picture, y, x, rgb), uint8 or floats in 0..1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from interp.base.errors import InputError
from interp.metrics.distances import LUMINANCE, as_floats
from interp.store.schema import Array

EDGE = 0.1  # smallest slope of an edge, share of the luminance's range per pixel


def psnr(pictures: Array, others: Array) -> Array:
    """Peak signal-to-noise ratio, dB, for a range of 1: (picture); infinite for equal pictures."""
    one, other = _pair(pictures, others)
    from torchmetrics.functional.image import peak_signal_noise_ratio

    found = [
        peak_signal_noise_ratio(a[None], b[None], data_range=1.0) for a, b in zip(_tensor(one), _tensor(other), strict=True)
    ]
    return np.array([float(value) for value in found])


def ssim(pictures: Array, others: Array) -> Array:
    """Structural similarity (Wang et al. 2004), Gaussian window of 11 pixels, sigma 1.5, borders mirrored: (picture)."""
    one, other = _pair(pictures, others)
    if min(one.shape[1:3]) < 11:
        raise InputError(f"ssim needs pictures of at least 11 x 11 pixels; got {one.shape[2]} x {one.shape[1]}")
    from torchmetrics.functional.image import structural_similarity_index_measure

    found = structural_similarity_index_measure(_tensor(one), _tensor(other), data_range=1.0, reduction="none")
    return np.asarray(found).reshape(len(one))


def edge_density(pictures: Array) -> Array:
    """Share of pixels whose luminance changes by more than a tenth of the range per pixel (Sobel): (...)."""
    grey = as_floats(pictures) @ LUMINANCE
    slopes = []
    for along, across in ((-2, -1), (-1, -2)):
        slope = ndimage.correlate1d(grey, np.array([-0.5, 0.0, 0.5]), axis=along, mode="nearest")
        slopes.append(ndimage.correlate1d(slope, np.array([0.25, 0.5, 0.25]), axis=across, mode="nearest"))
    return np.asarray((np.hypot(*slopes) > EDGE).mean(axis=(-2, -1)))


def colour_statistics(pictures: Array) -> dict[str, Array]:
    """Colourfulness (Hasler and Suesstrunk 2003, colours in 0..255), mean saturation (HSV), deviation of luminance: (...)."""
    floats = as_floats(pictures)
    red, green, blue = (floats[..., channel] for channel in range(3))
    opponents = red - green, 0.5 * (red + green) - blue
    axes = (-2, -1)
    spread = np.sqrt(sum(opponent.var(axis=axes) for opponent in opponents))
    middle = np.sqrt(sum(opponent.mean(axis=axes) ** 2 for opponent in opponents))
    high, low = floats.max(axis=-1), floats.min(axis=-1)
    saturation = np.divide(high - low, high, out=np.zeros_like(high), where=high > 0)
    return {
        "colourfulness": np.asarray(255.0 * (spread + 0.3 * middle)),
        "saturation": np.asarray(saturation.mean(axis=axes)),
        "contrast": np.asarray((floats @ LUMINANCE).std(axis=axes)),
    }


def _pair(pictures: Array, others: Array) -> tuple[Array, Array]:
    one, other = as_floats(pictures), as_floats(others)
    if one.shape != other.shape or one.ndim != 4:
        raise InputError(
            f"pictures must be (picture, y, x, rgb), of equal number and size in both; got {one.shape} and {other.shape}"
        )
    return one, other


def _tensor(pictures: Array) -> Any:
    import torch

    return torch.from_numpy(pictures).permute(0, 3, 1, 2)
