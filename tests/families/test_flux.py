"""FLUX.1, with embedded guidance as in dev, and without as in schnell and the de-distilled variant."""

from __future__ import annotations

from typing import Any

import pytest

from interp.testing import FamilyTests


class TestFlux(FamilyTests):
    name = kind = "flux"
    published = {
        "flux": ({"double": 19, "single": 38}, 3072, ("attn", "mlp"), (11.8, 12.0)),
        "flux-schnell": ({"double": 19, "single": 38}, 3072, ("attn", "mlp"), (11.8, 12.0)),
        "flux-dedistilled": ({"double": 19, "single": 38}, 3072, ("attn", "mlp"), (11.8, 12.0)),
    }

    order: tuple[str, ...] = ("text", "image")

    def hooks(self, transformer: Any, seen: Any) -> None:
        """Blocks return both streams in this order; a single block's gate is both streams'."""
        doubles = list(transformer.transformer_blocks)
        for index, block in enumerate([*doubles, *transformer.single_transformer_blocks]):
            seen.states_after(block, index, self.order)
            if index < len(doubles):
                seen.gates_after(block.norm1, index, ["image"], {"attn": 1, "mlp": 4})
                seen.gates_after(block.norm1_context, index, ["text"], {"attn": 1, "mlp": 4})
            else:
                seen.gates_after(block.norm, index, ["image", "text"], {"attn": 1})

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        states, pooled, _ = pipe.encode_prompt("", "", max_sequence_length=settings["max_sequence_length"])
        return {"encoder_hidden_states": states, "pooled_projections": pooled}

    def arguments(self, pipe: Any, prompts: list[str], settings: Any, scale: float) -> dict[str, Any]:
        """Its own guidance is a second call with a negative prompt; `guidance_scale` is the embedded one."""
        embedded = {"guidance_scale": settings["embedded_guidance"]} if "embedded_guidance" in settings else {}
        own = {"negative_prompt": [""] * len(prompts), "true_cfg_scale": scale} if scale != 1 else {}
        return {"prompt": prompts, "max_sequence_length": settings["max_sequence_length"], **embedded, **own}


@pytest.mark.long
class TestSchnell(TestFlux):
    name = "schnell"
    sizes = {"guidance_embeds": False}
