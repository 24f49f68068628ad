"""Hunyuan-DiT: no gates; blocks with a long skip; predicts v, and draws noise at every step."""

from __future__ import annotations

from typing import Any

import pytest

from interp.testing import FamilyTests


@pytest.mark.filterwarnings("ignore:.*has no gates")
class TestHunyuanDiT(FamilyTests):
    name = kind = "hunyuandit"
    published = {
        "hunyuandit": ({"cross": 21, "skip": 19}, 1408, (), (1.49, 1.51)),
    }
    call = {"use_resolution_binning": False}

    def hooks(self, transformer: Any, seen: Any) -> None:
        for index, block in enumerate(transformer.blocks):
            seen.states_after(block, index)

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        (clip, clip_mask), (t5, t5_mask) = (
            pipe.encode_prompt(["x"], text_encoder_index=number, max_sequence_length=tokens)[1::2]
            for number, tokens in ((0, 77), (1, 256))
        )
        names = ("encoder_hidden_states", "text_embedding_mask", "encoder_hidden_states_t5", "text_embedding_mask_t5")
        return dict(zip(names, (clip, clip_mask, t5, t5_mask), strict=True))
