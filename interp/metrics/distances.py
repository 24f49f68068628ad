"""Distances of pictures, in structure and in detail, without a trained model. numpy and scipy.

Pictures are (..., y, x, rgb), uint8 or floats in 0..1. Structure is what a Gaussian blur leaves; detail is the radial
power spectrum (van der Schaaf and van Hateren 1996) and the variance of the Laplacian (Pech-Pacheco et al. 2000).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from interp.base.errors import InputError
from interp.store.schema import Array

BLUR = 1 / 16  # of the picture's shorter side: standard deviation of the low-pass filter
DETAIL_FROM = 0.125  # cycles per pixel: a period of eight pixels; 0.5 is the finest
BINS = 16
LUMINANCE = np.array([0.299, 0.587, 0.114])  # of red, green, blue (ITU-R BT.601)
TOLERANCE = 1e-4  # beyond 0..1: rounding
FLOOR = 1e-10  # power of a flat picture, so that its logarithm exists


def as_floats(pictures: Array) -> Array:
    """Convert pictures to float64 in 0..1; anything else is an error."""
    pictures = check_shape(np.asarray(pictures))
    floats = pictures / 255.0 if pictures.dtype == np.uint8 else pictures.astype(np.float64)
    if not np.isfinite(floats).all():
        raise InputError("pictures hold NaN or Inf")
    if floats.size and (floats.min() < -TOLERANCE or floats.max() > 1 + TOLERANCE):
        raise InputError(f"pictures must be uint8 or floats in 0..1; got {floats.min():.3g} to {floats.max():.3g}")
    return np.asarray(floats)


def check_shape(pictures: Array) -> Array:
    """The pictures unchanged, or an error if they are not (..., y, x, rgb)."""
    if pictures.ndim < 3 or pictures.shape[-1] != 3:
        raise InputError(f"pictures must be (..., y, x, rgb); got shape {pictures.shape}")
    if min(pictures.shape[-3:-1]) < 2:
        raise InputError(f"pictures must be at least 2 x 2 pixels; got {pictures.shape[-3]} x {pictures.shape[-2]}")
    return pictures


def low_pass(pictures: Array, blur: float = BLUR) -> Array:
    """Gaussian blur, standard deviation `blur` of the shorter side: (..., y, x, rgb) float64."""
    floats = as_floats(pictures)
    sigma = blur * min(floats.shape[-3:-1])
    return np.asarray(ndimage.gaussian_filter(floats, sigma, axes=(-3, -2), mode="reflect"))


def structure_distance(pictures: Array, others: Array, blur: float = BLUR) -> Array:
    """Root mean square difference of the blurred pictures, 0..1: (...)."""
    difference = low_pass(pictures, blur) - low_pass(others, blur)
    return np.asarray(np.sqrt((difference**2).mean(axis=(-3, -2, -1))))


def radial_spectrum(pictures: Array, bins: int = BINS) -> tuple[Array, Array]:
    """log10 of the luminance's power by spatial frequency: (frequencies in cycles per pixel, power (..., frequency)).

    A Hann window suppresses the picture's borders; the mean is subtracted first. Frequencies 0 to 0.5 in equal bins.
    """
    grey = as_floats(pictures) @ LUMINANCE
    height, width = grey.shape[-2:]
    if min(height, width) < 2 * bins:
        raise InputError(f"pictures must be at least {2 * bins} pixels a side for {bins} frequencies; got {width} x {height}")
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    grey = (grey - grey.mean(axis=(-2, -1), keepdims=True)) * window
    power = np.abs(np.fft.fft2(grey)) ** 2 / (window**2).sum()
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    which = np.minimum((radius / 0.5 * bins).astype(int), bins)  # the corners, beyond 0.5, are left out
    means = np.stack([power[..., which == number].mean(axis=-1) for number in range(bins)], axis=-1)
    return (np.arange(bins) + 0.5) * 0.5 / bins, np.log10(means + FLOOR)


def spectrum_distance(pictures: Array, reference: Array, bins: int = BINS) -> Array:
    """How far the fine part of each picture's radial spectrum is from a reference spectrum, in decades: (...).

    `reference` is log10 power, (frequency,) or (..., frequency), such as the mean over real pictures. Excess power
    counts like missing power: noise is not detail.
    """
    frequencies, power = radial_spectrum(pictures, bins)
    fine = frequencies >= DETAIL_FROM
    difference = power[..., fine] - np.asarray(reference)[..., fine]
    return np.asarray(np.sqrt((difference**2).mean(axis=-1)))


def sharpness(pictures: Array) -> Array:
    """log2 of the variance of the luminance's Laplacian: (...). Higher is sharper, or noisier."""
    return np.asarray(np.log2(laplacian_variance(pictures) + FLOOR))


def laplacian_variance(pictures: Array) -> Array:
    """Variance of the luminance's Laplacian: (...). Higher is sharper, or noisier."""
    grey = as_floats(pictures) @ LUMINANCE
    laplacian = np.zeros_like(grey)
    for axis in (-2, -1):
        laplacian += ndimage.correlate1d(grey, np.array([1.0, -2.0, 1.0]), axis=axis, mode="reflect")
    return np.asarray(laplacian.var(axis=(-2, -1)))
