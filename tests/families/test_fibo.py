"""Bria FIBO: half of the text's channels are replaced before every block, so text is no stream; calls have one row."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import interp
from interp.experiments.generation import generate
from interp.interventions import SwapConditioning
from interp.testing import FamilyTests


class TestFibo(FamilyTests):
    name = kind = "fibo"
    published = {
        "fibo": ({"double": 8, "single": 38}, 3072, ("attn", "mlp"), (8.2, 8.4)),
    }
    prompts = ("a red cat", "the blue dog", "two dog and a green square", "a photo of a dog")

    def hooks(self, transformer: Any, seen: Any) -> None:
        """A double block returns (text, image); a row's image tokens are the last of a single block's state."""
        size: dict[str, int] = {}
        seen.before(transformer, lambda given: size.update(image=given["hidden_states"].shape[1]))
        doubles, singles = list(transformer.transformer_blocks), list(transformer.single_transformer_blocks)
        for index, block in enumerate(doubles):
            seen.after(block, lambda output, index=index: seen.keep_state("image", index, output[1]))
            seen.gates_after(block.norm1, index, ["image"], {"attn": 1, "mlp": 4})
        for index, block in enumerate(singles, start=len(doubles)):
            seen.after(block, lambda output, index=index: seen.keep_state("image", index, output[:, -size["image"] :]))
            seen.gates_after(block.norm, index, ["image"], {"attn": 1})

    def changed(self, output: Any, change: Any, tokens: int) -> Any:
        return torch.cat([output[:, :-tokens], change(output[:, -tokens:])], dim=1)

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        """The tiny text encoder has three layers, and the transformer five blocks: the last layer serves three of them."""
        states, layers, _ = pipe.get_prompt_embeds("")
        stacked = torch.stack([layers[number] for number in (0, 1, 2, 2, 2)], dim=1)
        places = torch.zeros(1, states.shape[1], 3)
        return {"encoder_hidden_states": states, "text_encoder_layers": stacked, "txt_ids": places}

    def test_another_text_may_have_another_length(self, model: interp.Model) -> None:
        """A swapped text gives the picture of its own prompt; three texts of other lengths are drawn one by one."""
        given: dict[str, Any] = {"steps": 2, "seeds": "shared"}
        together = generate(model, self.prompts[1:], batch_size=3, **given)["image"]
        swap = SwapConditioning.of(model, prompt=self.prompts[2], tokens=True)
        found = generate(model, self.prompts[:1], interventions=[swap], **given)["image"]
        np.testing.assert_array_equal(found[0], together[1])
        np.testing.assert_array_equal(generate(model, self.prompts[2:3], **given)["image"][0], together[1])
