"""SANA: gates from a table in the block, a convolution for an MLP, cross-attention without a gate."""

from __future__ import annotations

from typing import Any

from interp.testing import FamilyTests


class TestSana(FamilyTests):
    name = kind = "sana"
    published = {
        "sana1.5": ({"cross": 20}, 2240, ("attn", "mlp"), (1.55, 1.65)),
        "sana1.5-4.8b": ({"cross": 60}, 2240, ("attn", "mlp"), (4.6, 4.9)),
    }
    call = {"use_resolution_binning": False}

    def hooks(self, transformer: Any, seen: Any) -> None:
        for index, block in enumerate(transformer.transformer_blocks):
            seen.states_after(block, index)
            seen.table_gates_before(block, index, "timestep")

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        states, mask = pipe.encode_prompt(["x"], True, "", **settings)[2:]
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}
