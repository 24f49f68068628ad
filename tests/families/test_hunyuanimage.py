"""HunyuanImage 2.1: two texts under masks, which the transformer reorders; its own guidance is a part of the pipeline."""

from __future__ import annotations

from typing import Any

from diffusers.guiders import ClassifierFreeGuidance
from test_flux import TestFlux as _Flux

from interp.testing import FamilyTests


class TestHunyuanImage(FamilyTests):
    name = kind = "hunyuanimage"
    published = {
        "hunyuanimage2.1": ({"double": 20, "single": 40}, 3584, ("attn", "mlp"), (17.2, 17.6)),
        "hunyuanimage2.1-distilled": ({"double": 20, "single": 40}, 3584, ("attn", "mlp"), (17.2, 17.6)),
    }
    guidable = False  # `interp.guided` refuses a guider; without one the pipeline has no guidance: tests/test_guided.py

    hooks = _Flux.hooks
    order = ("image", "text")

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        states, mask, glyphs, glyph_mask = pipe.encode_prompt([""], batch_size=1)
        given = {"encoder_hidden_states": states, "encoder_attention_mask": mask}
        return given | {"encoder_hidden_states_2": glyphs, "encoder_attention_mask_2": glyph_mask}

    def arguments(self, pipe: Any, prompts: list[str], settings: Any, scale: float) -> dict[str, Any]:
        return {"prompt": prompts, **settings}

    def draw(self, pipe: Any, prompts: Any, settings: Any, scale: float, **more: Any) -> Any:
        """No argument turns its guidance on or off: the guider is a part of the pipeline."""
        pipe.register_modules(guider=None if scale == 1 else ClassifierFreeGuidance(guidance_scale=scale))
        try:
            return super().draw(pipe, prompts, settings, scale, **more)
        finally:
            pipe.register_modules(guider=None)
