"""ERNIE-Image: tokens before the batch, gates that all blocks share, text as long as the longest prompt of a call."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from interp.experiments.generation import generate
from interp.testing import FamilyTests
from interp.testing.family import generators
from interp.tracing.model import Model


class TestErnieImage(FamilyTests):
    name = kind = "ernieimage"
    published = {
        "ernie-image": ({"single": 36}, 4096, ("attn", "mlp"), (7.9, 8.2)),
        "ernie-image-turbo": ({"single": 36}, 4096, ("attn", "mlp"), (7.9, 8.2)),
    }
    call = {"use_pe": False}

    def hooks(self, transformer: Any, seen: Any) -> None:
        """A block's state is (token, batch, channel), image first; its gates are the same for every token."""
        size: dict[str, int] = {}
        seen.before(transformer, lambda given: size.update(image=given["hidden_states"][0, 0].numel()))
        for index, block in enumerate(transformer.layers):

            def gates(given: Any, index: int = index) -> None:
                for gate, item in (("attn", 2), ("mlp", 5)):
                    seen.keep_gate(["image"], gate, index, given["temb"][item][0])

            def state(output: Any, index: int = index) -> None:
                seen.keep_state("image", index, output.transpose(0, 1)[:, : size["image"]])

            seen.before(block, gates)
            seen.after(block, state)

    def changed(self, output: Any, change: Any, tokens: int) -> Any:
        """The image comes first, and tokens before the batch."""
        return torch.cat([change(output[:tokens].transpose(0, 1)).transpose(0, 1), output[tokens:]])

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        (states,) = pipe.encode_prompt([""], "cpu")
        return {"text_bth": states[None], "text_lens": states.new_tensor([len(states)]).long()}

    def test_a_negative_prompt_may_be_longer_than_the_prompts(self, model: Model) -> None:
        """Then every row's text is as long as it; to one level of 255."""
        negative = "two blue square and the red circle of a green dog"
        own = {"negative_prompt": negative, "num_inference_steps": 2, "generator": generators(1, 0), "output_type": "np"}
        size = dict(zip(("height", "width"), model.sizes(), strict=True))
        wanted = self.pictures(self.draw(model.pipe, ["a cat"], {}, 3.0, **own, **size)).astype(int)
        given = {"steps": 2, "seeds": "shared", "guidance": "cfg:3", "negative_prompt": negative}
        found = generate(model, ["a cat"], **given)["image"].to_numpy()
        assert np.abs(found.astype(int) - wanted).max() <= 1
