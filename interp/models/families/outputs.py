"""A pipeline's output as pictures: of videos a frame, of sounds a spectrogram."""

from __future__ import annotations

from typing import Any

import numpy as np

RGB = 3  # channels of a picture


def drawn(output: Any) -> list[np.ndarray[Any, Any]]:
    """The pictures in a pipeline's output, one array per row, float in 0..1: (y, x, rgb), or (frame, y, x, rgb) of a video.
    Sound gives its spectrogram; transparency is left out.
    """
    if hasattr(output, "audios"):
        return [spectrogram(np.asarray(sound, np.float64)) for sound in output.audios]
    name = next(name for name in ("frames", "images", "image") if hasattr(output, name))
    pictures = getattr(output, name)
    return [picture[..., :RGB] if picture.shape[-1] > RGB else picture for picture in pictures]


BINS, COLUMNS, QUIET = 64, 1024, 80.0  # of a spectrogram: frequencies, most time steps, dB below full scale that are black


def spectrogram_size(samples: int) -> tuple[int, int]:
    """(frequencies, time steps) of a sound's spectrogram."""
    return BINS, samples // _hop(samples)


def spectrogram(sound: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The spectrogram of a sound (channel, sample), loudness in dB: (y, x, rgb), high frequencies at the top."""
    mono = sound.mean(axis=0)
    hop = _hop(len(mono))
    padded = np.pad(mono, (0, 2 * BINS))
    parts = np.stack([padded[start : start + 2 * BINS] for start in range(0, len(mono) // hop * hop, hop)])
    size = np.abs(np.fft.rfft(parts * np.hanning(2 * BINS), axis=1))[:, 1:] / BINS
    level = 20 * np.log10(size + 1e-9) / QUIET + 1
    grey = np.where(np.isfinite(level), np.clip(level, 0, 1), level).T[::-1]
    return np.repeat(grey[..., None], 3, axis=-1)


def _hop(samples: int) -> int:
    return max(samples // COLUMNS, 1)


def still(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A picture unchanged, or a video's middle frame: (y, x, rgb)."""
    return picture[len(picture) // 2] if picture.ndim == 4 else picture


def as_bytes(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Convert 0..1 to uint8, as diffusers does for PIL images."""
    found: np.ndarray[Any, Any] = (picture * 255).round().astype(np.uint8)
    return found
