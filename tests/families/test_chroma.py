"""Chroma: gates of all blocks from one network; a mask over text and image tokens."""

from __future__ import annotations

from typing import Any

import torch

from interp.testing import FamilyTests


class TestChroma(FamilyTests):
    name = kind = "chroma"
    published = {
        "chroma": ({"double": 19, "single": 38}, 3072, ("attn", "mlp"), (8.8, 9.0)),
    }

    def hooks(self, transformer: Any, seen: Any) -> None:
        """A block receives (batch, chunk, channel): six chunks of the image and six of the text, or three of both."""
        doubles, singles = list(transformer.transformer_blocks), list(transformer.single_transformer_blocks)
        for index, block in enumerate([*doubles, *singles]):
            seen.states_after(block, index, ("text", "image"))

            def keep(given: Any, index: int = index) -> None:
                if index >= len(doubles):
                    seen.keep_gate(["image", "text"], "attn", index, given["temb"][:, 2])
                    return
                for stream, first in (("image", 0), ("text", 6)):
                    for gate, chunk in (("attn", 2), ("mlp", 5)):
                        seen.keep_gate([stream], gate, index, given["temb"][:, first + chunk])

            seen.before(block, keep)

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        states, _, mask = pipe.encode_prompt(["x"], "", **settings)[3:]
        image = torch.ones(len(mask), 8 * 8)
        return {"encoder_hidden_states": states, "attention_mask": torch.cat([mask, image], dim=1)}
