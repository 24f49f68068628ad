"""HunyuanVideo: videos; an embedded guidance that the transformer receives times 1000."""

from __future__ import annotations

from typing import Any

from test_hunyuanimage import TestHunyuanImage as _HunyuanImage

from interp.testing import FamilyTests


class TestHunyuanVideo(FamilyTests):
    name = kind = "hunyuanvideo"
    published = {
        "hunyuanvideo": ({"double": 20, "single": 40}, 3072, ("attn", "mlp"), (12.8, 12.9)),
    }
    hooks = _HunyuanImage.hooks
    order = _HunyuanImage.order

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        states, pooled, mask = pipe.encode_prompt("", max_sequence_length=settings["max_sequence_length"])
        return {"encoder_hidden_states": states, "pooled_projections": pooled, "encoder_attention_mask": mask.float()}

    def arguments(self, pipe: Any, prompts: list[str], settings: Any, scale: float) -> dict[str, Any]:
        """Its own guidance is a second call with a negative prompt; `guidance_scale` is the embedded one."""
        own = {"negative_prompt": [""] * len(prompts), "true_cfg_scale": scale} if scale != 1 else {}
        embedded = {"guidance_scale": settings["embedded_guidance"]}
        return {"prompt": prompts, **{k: v for k, v in settings.items() if k != "embedded_guidance"}, **embedded, **own}
