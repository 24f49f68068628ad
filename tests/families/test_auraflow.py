"""AuraFlow: a gate inside the branch of another; register tokens before the text."""

from __future__ import annotations

from typing import Any

from interp.testing import FamilyTests


class TestAuraFlow(FamilyTests):
    name = kind = "auraflow"
    published = {
        "auraflow": ({"joint": 4, "single": 32}, 3072, ("attn", "mlp"), (6.6, 7.0)),
    }

    def hooks(self, transformer: Any, seen: Any) -> None:
        """AdaLN-Zero norms; a single block returns one state, text first."""
        joints, singles = list(transformer.joint_transformer_blocks), list(transformer.single_transformer_blocks)
        for index, block in enumerate([*joints, *singles]):
            seen.states_after(block, index, ("text", "image"))
            streams = ["image"] if index < len(joints) else ["image", "text"]
            seen.gates_after(block.norm1, index, streams, {"attn": 1, "mlp": 4})
            if index < len(joints):
                seen.gates_after(block.norm1_context, index, ["text"], {"attn": 1, "mlp": 4})

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        return {"encoder_hidden_states": pipe.encode_prompt(["x"], "", True, **settings)[2]}
