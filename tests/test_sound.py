"""Sound: its picture is a spectrogram."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import PROMPTS
from messages import refused

import interp
from interp.experiments.kinds.lens import lens
from interp.models.families.outputs import spectrogram, spectrogram_size

pytestmark = pytest.mark.filterwarnings("ignore::interp.InterpWarning")


def test_the_picture_of_a_sound_is_its_spectrogram(stableaudio_model: interp.Model, tmp_path: Path) -> None:
    """A tone is a line at its frequency; louder is brighter; high ones are at the top. Latents are no pictures."""
    time = np.arange(4096)
    low, high = (0.5 * np.sin(2 * np.pi * row / 128 * time)[None] for row in (8, 48))  # periods of 16 and of 2.7 samples
    for tone, row in ((low, 8), (high, 48)):
        picture = spectrogram(tone)
        assert picture.shape == (*spectrogram_size(4096), 3)
        assert int(picture[:, 100, 0].argmax()) == 64 - row
    assert spectrogram(low).max() > spectrogram(low / 10).max()
    assert spectrogram(np.zeros((2, 4096))).max() == 0
    run = interp.trace(stableaudio_model, PROMPTS[:2], out=tmp_path / "r.zarr", steps=2)
    assert run.images["image"].shape == (2, *stableaudio_model.sizes(), 3)
    assert run.images["latents"].dims == ("prompt", "latent_channel", "latent_token")
    with refused(interp.ModelError, "sound", "latents"):
        lens(stableaudio_model, PROMPTS[:1], out=tmp_path / "l.zarr", steps=2, without=[3]).run()
