"""LTX-Video: videos whose latents are tokens."""

from __future__ import annotations

from typing import Any

from interp.testing import FamilyTests


class TestLTX(FamilyTests):
    name = kind = "ltx"
    published = {
        "ltx-video": ({"cross": 28}, 2048, ("attn", "mlp"), (1.9, 1.95)),
    }

    def hooks(self, transformer: Any, seen: Any) -> None:
        for index, block in enumerate(transformer.transformer_blocks):
            seen.states_after(block, index)
            seen.table_gates_before(block, index, "temb")

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        length = settings["max_sequence_length"]
        states, mask = pipe.encode_prompt(["x"], "", True, max_sequence_length=length)[2:]
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}
