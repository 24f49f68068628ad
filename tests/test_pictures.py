"""Picture metrics against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from messages import refused

import interp
from interp.metrics import distances as metrics

FLAT = np.full((1, 32, 32, 3), 0.5)


def wave(frequency: float, size: int = 64, amplitude: float = 0.25) -> np.ndarray:
    """A picture that varies along x alone, `frequency` in cycles per pixel."""
    line = 0.5 + amplitude * np.cos(2 * np.pi * frequency * np.arange(size))
    return np.repeat(np.repeat(line[None, None, :, None], size, axis=1), 3, axis=3)


def test_structure_is_blind_to_what_a_blur_removes() -> None:
    fine, coarse = wave(0.25), wave(1 / 64)
    assert float(metrics.structure_distance(fine, np.full_like(fine, 0.5))[0]) < 0.01
    assert float(metrics.structure_distance(coarse, np.full_like(coarse, 0.5))[0]) > 0.1
    assert float(metrics.structure_distance(FLAT + 0.1, FLAT)[0]) == pytest.approx(0.1)  # a change of brightness alone
    assert float(metrics.structure_distance(fine, fine)[0]) == 0.0


@pytest.mark.parametrize("frequency", [0.1, 0.2, 0.3, 0.45])
def test_the_spectrum_peaks_where_the_wave_is(frequency: float) -> None:
    frequencies, power = metrics.radial_spectrum(wave(frequency))
    assert abs(frequencies[power[0].argmax()] - frequency) < 0.5 / metrics.BINS


def test_power_goes_with_the_square_of_the_amplitude() -> None:
    frequencies, weak = metrics.radial_spectrum(wave(0.25, amplitude=0.1))
    _, strong = metrics.radial_spectrum(wave(0.25, amplitude=0.2))
    peak = int(weak[0].argmax())
    assert strong[0, peak] - weak[0, peak] == pytest.approx(np.log10(4.0), abs=1e-3)
    assert frequencies[0] == pytest.approx(0.25 / metrics.BINS)


def test_noise_is_no_detail() -> None:
    """White noise has more fine power than a natural picture: the distance grows both ways."""
    draw = np.random.default_rng(0)
    real = np.stack([np.clip(metrics.low_pass(draw.random((64, 64, 3)), 0.01), 0, 1) for _ in range(8)])
    reference = metrics.radial_spectrum(real)[1].mean(axis=0)
    own = metrics.spectrum_distance(real, reference).mean()
    blurred = metrics.spectrum_distance(metrics.low_pass(real, 0.05), reference).mean()
    noisy = metrics.spectrum_distance(np.clip(real + 0.2 * draw.standard_normal(real.shape), 0, 1), reference).mean()
    assert own < blurred
    assert own < noisy


def test_laplacian_variance_of_a_wave() -> None:
    """The Laplacian of cos(w x) is (2 cos w - 2) cos(w x): its variance is half of the factor squared."""
    frequency, amplitude = 0.25, 0.25
    inner = metrics.laplacian_variance(wave(frequency, size=256, amplitude=amplitude))[0]
    expected = amplitude**2 / 2 * (2 * np.cos(2 * np.pi * frequency) - 2) ** 2
    assert inner == pytest.approx(expected, rel=0.02)
    assert metrics.laplacian_variance(FLAT)[0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        (np.zeros((4, 4)), ("pictures", "(..., y, x, rgb)")),
        (np.zeros((1, 4, 3)), ("pictures", "2 x 2")),
        (np.full((4, 4, 3), np.nan), ("pictures", "NaN")),
    ],
)
def test_what_is_no_picture_is_refused(pictures: np.ndarray, words: tuple[str, ...]) -> None:
    with refused(interp.InputError, *words):
        metrics.laplacian_variance(pictures)
