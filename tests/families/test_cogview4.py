"""CogView4: one MLP, called for each stream; padding comes before the text; noise levels are shifted, timesteps are not."""

from __future__ import annotations

from typing import Any

import torch

from interp.testing import FamilyTests


class TestCogView4(FamilyTests):
    name = kind = "cogview4"
    published = {
        "cogview4": ({"joint": 28}, 4096, ("attn", "mlp"), (6.0, 6.5)),
    }
    gates_follow_size = True
    unread = [f"block.2/text/{site}" for site in ("alpha.attn", "alpha.mlp", "shift.mlp", "scale.mlp")]

    def hooks(self, transformer: Any, seen: Any) -> None:
        """Of each stream the norm gives five items: attention's gate second, the MLP's fifth. A block returns (image, text)."""
        for index, block in enumerate(transformer.transformer_blocks):
            seen.states_after(block, index, ("image", "text"))

            def keep(output: Any, index: int = index) -> None:
                for stream, first in (("image", 0), ("text", 5)):
                    seen.keep_gate([stream], "attn", index, output[first + 1])
                    seen.keep_gate([stream], "mlp", index, output[first + 4])

            seen.after(block.norm1, keep)

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        return {"encoder_hidden_states": self.each(pipe, [""])}

    def arguments(self, pipe: Any, prompts: list[str], settings: Any, scale: float) -> dict[str, Any]:
        text = {"prompt_embeds": self.each(pipe, prompts), "guidance_scale": scale}
        return text | ({"negative_prompt_embeds": self.each(pipe, [""] * len(prompts))} if scale > 1 else {})

    def each(self, pipe: Any, prompts: list[str]) -> torch.Tensor:
        """Each prompt as the pipeline encodes it alone: 16 tokens, for prompts as short as these."""
        with torch.no_grad():
            return torch.cat([pipe.encode_prompt([prompt], do_classifier_free_guidance=False)[0] for prompt in prompts])
