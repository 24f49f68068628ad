"""CogVideoX: videos of two streams, the image's first; v from pure noise, where sigma is infinite."""

from __future__ import annotations

from typing import Any

from interp.testing import FamilyTests


class TestCogVideoX(FamilyTests):
    name = kind = "cogvideox"
    published = {
        "cogvideox-2b": ({"joint": 30}, 1920, ("attn", "mlp"), (1.65, 1.75)),
        "cogvideox-5b": ({"joint": 42}, 3072, ("attn", "mlp"), (5.5, 5.65)),
    }
    unread = [f"block.2/text/{site}" for site in ("alpha.attn", "alpha.mlp", "shift.mlp", "scale.mlp")]

    def hooks(self, transformer: Any, seen: Any) -> None:
        """Both norms give (image, text, image's gate, text's gate); a block returns (image, text)."""
        for index, block in enumerate(transformer.transformer_blocks):
            seen.states_after(block, index, ("image", "text"))
            for gate, norm in (("attn", block.norm1), ("mlp", block.norm2)):

                def keep(output: Any, index: int = index, gate: str = gate) -> None:
                    for stream, item in (("image", 2), ("text", 3)):
                        seen.keep_gate([stream], gate, index, output[item][:, 0])

                seen.after(norm, keep)

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        length = settings["max_sequence_length"]
        return {"encoder_hidden_states": pipe.encode_prompt(["x"], "", True, max_sequence_length=length)[1]}
