"""Wan 2.1: videos, so tokens have a frame."""

from __future__ import annotations

from typing import Any

from interp.testing import FamilyTests


class TestWan(FamilyTests):
    name = kind = "wan"
    published = {
        "wan2.1": ({"cross": 30}, 1536, ("attn", "mlp"), (1.3, 1.45)),
        "wan2.1-14b": ({"cross": 40}, 5120, ("attn", "mlp"), (14.0, 14.4)),
    }

    def hooks(self, transformer: Any, seen: Any) -> None:
        for index, block in enumerate(transformer.blocks):
            seen.states_after(block, index)
            seen.table_gates_before(block, index, "temb")

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        length = settings["max_sequence_length"]
        return {"encoder_hidden_states": pipe.encode_prompt(["x"], "", True, max_sequence_length=length)[1]}
