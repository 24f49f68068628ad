"""Kandinsky 5.0: three gated branches; nothing masks the text's padding, so calls have one row; channels last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import interp
from interp.experiments.generation import generate
from interp.interventions import SwapConditioning
from interp.testing import FamilyTests
from interp.testing.family import generators

SIZES = [(wide, high) for wide in (32, 64) for high in (32, 64)]


class TestKandinsky5(FamilyTests):
    name = kind = "kandinsky5"
    published = {
        "kandinsky5-t2i-lite": ({"cross": 50}, 2560, ("attn", "attn2", "mlp"), (5.9, 6.1)),
    }
    prompts = ("a red cat", "the blue dog", "two dog and a green square", "a photo of a dog")

    flips = 0.1  # queries and keys are rounded to bfloat16, one way or the other

    def plain_pipeline(self, model: interp.Model) -> Any:
        """It would otherwise draw a megapixel."""
        pipe = super().plain_pipeline(model)
        pipe.resolutions = SIZES
        return pipe

    def hooks(self, transformer: Any, seen: Any) -> None:
        """A block's projection gives shift, scale and gate of self-attention, cross-attention and MLP."""
        for index, block in enumerate(transformer.visual_transformer_blocks):
            seen.states_after(block, index)
            seen.gates_after(block.visual_modulation, index, ["image"], {"attn": 2, "attn2": 5, "mlp": 8}, chunks=9)

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        """Its places are another argument, which the transformer takes with a batch axis, too."""
        states, pooled, _ = pipe.encode_prompt("", **settings)
        places = torch.arange(states.shape[1])[None]
        return {"encoder_hidden_states": states, "pooled_projections": pooled, "text_rope_pos": places}

    def test_rows_are_those_of_their_own_calls(self, model: interp.Model, tmp_path: Path) -> None:
        """Bit for bit: texts of other lengths in a batch of three, and one by one with the pipeline."""
        run = interp.trace(model, self.prompts[1:], out=tmp_path / "run.zarr", steps=2, batch_size=3, seeds="shared")
        size = dict(zip(("height", "width"), model.sizes(), strict=True))
        for row, prompt in enumerate(self.prompts[1:]):
            more = {"num_inference_steps": 2, "generator": generators(1, 0), "output_type": "np", **size}
            alone = self.pictures(self.draw(model.pipe, [prompt], {}, 1.0, **more))
            np.testing.assert_array_equal(run.images["image"][row], alone[0])

    def test_another_text_may_have_another_length(self, model: interp.Model) -> None:
        """A swapped text, with its pooled one, gives the picture of its own prompt."""
        given = {"steps": 2, "seeds": "shared"}
        swap = SwapConditioning.of(model, prompt=self.prompts[2], tokens=True, pooled=True)
        found = generate(model, self.prompts[:1], interventions=[swap], **given)["image"]
        np.testing.assert_array_equal(found, generate(model, self.prompts[2:3], **given)["image"])
