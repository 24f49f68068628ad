"""HunyuanVideo 1.5: double blocks alone, latents in the first channels, a guider that loading disables."""

from __future__ import annotations

from typing import Any

from diffusers.guiders import ClassifierFreeGuidance
from messages import refused

import interp
from interp.models import tiny
from interp.testing import FamilyTests

TEXT = ("encoder_hidden_states", "encoder_attention_mask", "encoder_hidden_states_2", "encoder_attention_mask_2")


class TestHunyuanVideo15(FamilyTests):
    name = kind = "hunyuanvideo15"
    published = {
        "hunyuanvideo1.5": ({"double": 54}, 2048, ("attn", "mlp"), (8.3, 8.4)),
    }

    unread = [f"block.2/text/{site}" for site in ("alpha.attn", "alpha.mlp", "shift.mlp", "scale.mlp")]

    def hooks(self, transformer: Any, seen: Any) -> None:
        """A block returns (image, text); each AdaLN-Zero norm gives its gates of attention and MLP."""
        for index, block in enumerate(transformer.transformer_blocks):
            seen.states_after(block, index, ("image", "text"))
            seen.gates_after(block.norm1, index, ["image"], {"attn": 1, "mlp": 4})
            seen.gates_after(block.norm1_context, index, ["text"], {"attn": 1, "mlp": 4})

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        return dict(zip(TEXT, pipe.encode_prompt([""], batch_size=1), strict=True))

    def arguments(self, pipe: Any, prompts: list[str], settings: Any, scale: float) -> dict[str, Any]:
        return {"prompt": prompts, **settings}

    def draw(self, pipe: Any, prompts: Any, settings: Any, scale: float, **more: Any) -> Any:
        """No argument turns its guidance on or off: the guider is a part of the pipeline."""
        own = pipe.guider
        pipe.vae.enable_slicing()  # without it, diffusers' autoencoder fails on a batch
        pipe.register_modules(guider=ClassifierFreeGuidance(guidance_scale=scale, enabled=scale != 1))
        try:
            return super().draw(pipe, prompts, settings, scale, **more)
        finally:
            pipe.register_modules(guider=own)


def test_what_loading_changes_is_asked_of_a_users_pipeline() -> None:
    pipe, _ = tiny.make("hunyuanvideo15")
    with refused(interp.ModelError, "autoencoder", "enable_slicing"):
        interp.wrap(pipe)
    pipe.vae.enable_slicing()
    assert interp.wrap(pipe).settings() == {"num_frames": 121}
    pipe.guider.enable()
    with refused(interp.ModelError, "guider", "disable"):
        interp.wrap(pipe)
