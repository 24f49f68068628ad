"""Krea 2: one joint state, gates from a table in the block, guidance counted from 0; distilled weights with a fixed shift."""

from __future__ import annotations

from typing import Any

import pytest

from interp.testing import FamilyTests


class TestKrea2(FamilyTests):
    name = kind = "krea2"
    published = {
        "krea2": ({"single": 28}, 6144, ("attn", "mlp"), (12.7, 13.0)),
        "krea2-turbo": ({"single": 28}, 6144, ("attn", "mlp"), (12.7, 13.0)),
    }

    leading = 24  # the text, which is first in the one state of a block

    def hooks(self, transformer: Any, seen: Any) -> None:
        """Text is first in a block's output. The gates are the third and sixth row of the argument plus the table."""
        length = 0

        def note(given: Any) -> None:
            nonlocal length
            length = given["encoder_hidden_states"].shape[1]

        seen.before(transformer, note)
        for index, block in enumerate(transformer.transformer_blocks):

            def keep_states(output: Any, index: int = index) -> None:
                seen.keep_state("text", index, output[:, :length])
                seen.keep_state("image", index, output[:, length:])

            def keep_gates(given: Any, index: int = index, table: Any = block.scale_shift_table) -> None:
                rows = given["temb"][:, 0].unflatten(-1, (6, -1)) + table
                for gate, row in (("attn", 2), ("mlp", 5)):
                    seen.keep_gate(("image", "text"), gate, index, rows[:, row])

            seen.after(block, keep_states)
            seen.before(block, keep_gates)

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        return dict(zip(("encoder_hidden_states", "encoder_attention_mask"), pipe.encode_prompt("", **settings), strict=True))

    def arguments(self, pipe: Any, prompts: list[str], settings: Any, scale: float) -> dict[str, Any]:
        return {"prompt": prompts, "guidance_scale": scale - 1, **settings}


@pytest.mark.long
class TestDistilled(TestKrea2):
    name = "krea2_distilled"
    sizes = {"distilled": True}
