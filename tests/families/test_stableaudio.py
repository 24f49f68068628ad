"""Stable Audio: sound, pictured as a spectrogram. No gates; a token before the stream's; one timestep for all rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from interp.testing import FamilyTests


@pytest.mark.filterwarnings("ignore:.*has no gates")
class TestStableAudio(FamilyTests):
    name = kind = "stableaudio"
    published = {
        "stable-audio": ({"cross": 24}, 1536, (), (1.05, 1.06)),
    }
    leading = 1
    decodes = False

    def hooks(self, transformer: Any, seen: Any) -> None:
        for index, block in enumerate(transformer.transformer_blocks):
            seen.after(block, lambda output, index=index: seen.keep_state("audio", index, output[:, 1:]))

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        """Nothing at all, not an empty prompt."""
        return {"encoder_hidden_states": torch.zeros(1, pipe.tokenizer.model_max_length + 2, 16)}
