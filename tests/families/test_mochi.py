"""Mochi: videos; tanh gates of normalised branches, set by the text tokens too; a scheduler that runs backwards."""

from __future__ import annotations

from typing import Any

from test_ltx import TestLTX as _LTX

from interp.testing import FamilyTests


class TestMochi(FamilyTests):
    name = kind = "mochi"
    published = {
        "mochi": ({"joint": 48}, 3072, ("attn", "mlp"), (10.0, 10.1)),
    }
    no_prompt = _LTX.no_prompt

    def hooks(self, transformer: Any, seen: Any) -> None:
        """norm1 gives (state, gate, scale, gate), and tanh of the gates multiplies; the last block's text has neither."""
        for index, block in enumerate(transformer.transformer_blocks):
            here = {"image": block.norm1} if block.context_pre_only else {"image": block.norm1, "text": block.norm1_context}
            seen.states_after(block, index, tuple(here))
            for stream, norm in here.items():

                def keep(output: Any, stream: str = stream, index: int = index) -> None:
                    for gate, item in (("attn", 1), ("mlp", 3)):
                        seen.keep_gate([stream], gate, index, output[item].tanh())

                seen.after(norm, keep)
