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
        """norm1 gives (state, gate, scale, gate), and tanh of the gates multiplies; the narrower text is no stream."""
        for index, block in enumerate(transformer.transformer_blocks):
            seen.after(block, lambda output, index=index: seen.keep_state("image", index, output[0]))

            def keep(output: Any, index: int = index) -> None:
                for gate, item in (("attn", 1), ("mlp", 3)):
                    seen.keep_gate(["image"], gate, index, output[item].tanh())

            seen.after(block.norm1, keep)
