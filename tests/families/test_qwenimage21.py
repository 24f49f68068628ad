"""Qwen-Image 2.1: one row a call, as an image's place depends on the longest prompt; text with gates of timestep 0."""

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


class TestQwenImage21(FamilyTests):
    name = kind = "qwenimage21"
    published = {
        "qwen-image-2.1": ({"single": 32}, 4096, ("attn", "mlp"), (7.0, 7.2)),
    }
    prompts = ("a red cat", "the blue dog", "two dog and a green square", "a photo of a dog")
    call = {"use_kv_cache": False}
    rowless = ("rotary_emb", "target_token_mask")

    def hooks(self, transformer: Any, seen: Any) -> None:
        """A row's image tokens are the last of a state and of the output; the text's gates are the last row's."""
        size: dict[str, int] = {}
        seen.before(transformer, lambda given: size.update(image=given["hidden_states"].shape[1]))
        seen.predicted = lambda output: output[:, -size["image"] :]
        for index, block in enumerate(transformer.transformer_blocks):

            def gates(given: Any, index: int = index) -> None:
                _, attn, _, mlp = given["modulation"].chunk(4, dim=-1)
                seen.keep_gate(["image"], "attn", index, attn[:-1].tanh())
                seen.keep_gate(["image"], "mlp", index, mlp[:-1].tanh())

            seen.before(block, gates)
            seen.after(block, lambda out, index=index: seen.keep_state("image", index, out[:, -size["image"] :]))

    def changed(self, output: Any, change: Any, tokens: int) -> Any:
        return torch.cat([output[:, :-tokens], change(output[:, -tokens:])], dim=1)

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        """The mask is of a picture of 64x64 pixels: four tokens of 16x16 for each of its last places."""
        states, *_ = pipe.encode_prompt("")
        mask = torch.tensor([[False] * states.shape[1] + [True] * 4])
        return {"encoder_hidden_states": states, "img_mask": mask}

    def arguments(self, pipe: Any, prompts: list[str], settings: Any, scale: float) -> dict[str, Any]:
        return {"prompt": prompts, "negative_prompt": [""] * len(prompts), "true_cfg_scale": scale, **self.call}

    def test_rows_are_those_of_their_own_calls(self, model: interp.Model, tmp_path: Path) -> None:
        """Bit for bit: texts of other lengths in a batch of three, and one by one with the pipeline."""
        run = interp.trace(model, self.prompts[1:], out=tmp_path / "run.zarr", steps=2, batch_size=3, seeds="shared")
        size = dict(zip(("height", "width"), model.sizes(), strict=True))
        for row, prompt in enumerate(self.prompts[1:]):
            more = {"num_inference_steps": 2, "generator": generators(1, 0), "output_type": "np", **size}
            alone = self.pictures(self.draw(model.pipe, [prompt], {}, 1.0, **more))
            np.testing.assert_array_equal(run.images["image"][row], alone[0])

    def test_another_text_may_have_another_length(self, model: interp.Model) -> None:
        """A swapped text gives the picture of its own prompt."""
        given = {"steps": 2, "seeds": "shared"}
        swap = SwapConditioning.of(model, prompt=self.prompts[2], tokens=True)
        found = generate(model, self.prompts[:1], interventions=[swap], **given)["image"]
        np.testing.assert_array_equal(found, generate(model, self.prompts[2:3], **given)["image"])
