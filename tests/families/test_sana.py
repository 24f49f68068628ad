"""SANA: gates from a table in the block, a convolution for an MLP, cross-attention without a gate."""

from __future__ import annotations

from typing import Any

from interp.testing import FamilyTests


class TestSana(FamilyTests):
    name = kind = "sana"
    published = {
        "sana1.5": ({"cross": 20}, 2240, ("attn", "mlp"), (1.55, 1.65)),
        "sana1.5-4.8b": ({"cross": 60}, 2240, ("attn", "mlp"), (4.6, 4.9)),
        "sana-sprint": ({"cross": 20}, 2240, ("attn", "mlp"), (1.55, 1.65)),
        "sana-sprint-0.6b": ({"cross": 28}, 1152, ("attn", "mlp"), (0.57, 0.62)),
    }
    call = {"use_resolution_binning": False}

    def hooks(self, transformer: Any, seen: Any) -> None:
        for index, block in enumerate(transformer.transformer_blocks):
            seen.states_after(block, index)
            seen.table_gates_before(block, index, "timestep")

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        states, mask = pipe.encode_prompt(["x"], True, "", **settings)[2:]
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


class TestSanaSprint(TestSana):
    name, sizes, published = "sprint", {"distilled": True}, {}
    own_guidance = False  # its guidance is embedded

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        states, mask = pipe.encode_prompt([""], max_sequence_length=settings["max_sequence_length"])
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}

    def arguments(self, pipe: Any, prompts: list[str], settings: Any, scale: float) -> dict[str, Any]:
        given = {"guidance_scale": settings["embedded_guidance"], "max_sequence_length": settings["max_sequence_length"]}
        return {"prompt": prompts, **self.call, **given, "intermediate_timesteps": None}

    def draw(self, pipe: Any, prompts: Any, settings: Any, scale: float, **more: Any) -> Any:
        """Its scheduler takes the angle between two steps, where there are two."""
        between = {"intermediate_timesteps": 1.3} if more["num_inference_steps"] == 2 else {}
        return super().draw(pipe, prompts, settings, scale, **between, **more)
