"""Stable Diffusion 3, and 3.5 Medium's shape: its first blocks have a second, image-only attention."""

from __future__ import annotations

from typing import Any

from interp.testing import FamilyTests


class TestSD3(FamilyTests):
    name = kind = "sd3"
    published = {
        "sd3": ({"joint": 24}, 1536, ("attn", "mlp"), (2.0, 2.1)),
        "sd3.5": ({"joint": 38}, 2432, ("attn", "mlp"), (8.0, 8.2)),
        "sd3.5-medium": ({"joint-dual": 13, "joint": 11}, 1536, ("attn", "attn2", "mlp"), (2.2, 2.6)),
    }
    ZERO = {"attn": 1, "mlp": 4}  # items of AdaLN-Zero's output
    ZERO_X = {**ZERO, "attn2": 6}

    def hooks(self, transformer: Any, seen: Any) -> None:
        """A block returns (text, image); the last one's text norm is continuous and has no gates."""
        for index, block in enumerate(transformer.transformer_blocks):
            seen.states_after(block, index, ("text", "image"))
            seen.gates_after(block.norm1, index, ["image"], self.ZERO_X if block.use_dual_attention else self.ZERO)
            if not block.context_pre_only:
                seen.gates_after(block.norm1_context, index, ["text"], self.ZERO)

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        states, _, pooled, _ = pipe.encode_prompt("", "", "", do_classifier_free_guidance=False, **settings)
        return {"encoder_hidden_states": states, "pooled_projections": pooled}


class TestSD35(TestSD3):
    name = "dual"
    sizes = {"dual_attention": (0, 1)}
