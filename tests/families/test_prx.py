"""PRX: text that no block changes; one timestep for all rows; its own guidance draws one prompt at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from interp.testing import FamilyTests


class TestPRX(FamilyTests):
    name = kind = "prx"
    published = {  # 1.17e9: "1.2B" in Photoroom's ablations, "around 1.3B" in its model cards
        "prx": ({"cross": 16}, 1792, ("attn", "mlp"), (1.15, 1.2)),
        "prx-dc-ae": ({"cross": 16}, 1792, ("attn", "mlp"), (1.15, 1.2)),
    }

    def hooks(self, transformer: Any, seen: Any) -> None:
        """`modulation` gives (shift, scale, gate) of attention, then of the MLP: one row, the same for all of a batch."""
        rows = 1

        def note(given: Any) -> None:
            nonlocal rows
            rows = len(given["hidden_states"])

        seen.before(transformer, note)
        for index, block in enumerate(transformer.blocks):
            seen.states_after(block, index)

            def keep(output: Any, index: int = index) -> None:
                for gate, (_, _, alpha) in zip(("attn", "mlp"), output, strict=True):
                    seen.keep_gate(["image"], gate, index, alpha[:, 0].expand(rows, -1))

            seen.after(block.modulation, keep)

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        states, mask = self.encoded(pipe, [""], settings)
        return {"encoder_hidden_states": states, "attention_mask": mask}

    def arguments(self, pipe: Any, prompts: list[str], settings: Any, scale: float) -> dict[str, Any]:
        states, mask = self.encoded(pipe, prompts, settings)
        given = {"prompt_embeds": states, "prompt_attention_mask": mask}
        if scale != 1:
            states, mask = self.encoded(pipe, [""] * len(prompts), settings)
            given |= {"negative_prompt_embeds": states, "negative_prompt_attention_mask": mask}
        return {**given, "guidance_scale": scale, "use_resolution_binning": False}

    def encoded(self, pipe: Any, prompts: list[str], settings: Any) -> tuple[Any, Any]:
        """What the pipeline's encoder gives for prompts that it does not clean."""
        with patch.object(pipe.text_preprocessor, "clean_text", str):
            length = settings["max_sequence_length"]
            return pipe.encode_prompt(prompts, do_classifier_free_guidance=False, tokenizer_max_length=length)[:2]

    def draw(self, pipe: Any, prompts: Any, settings: Any, scale: float, **more: Any) -> Any:
        """Its own guidance gives the transformer two timesteps: of more prompts than one the call would fail."""
        if scale == 1:
            return super().draw(pipe, prompts, settings, scale, **more)
        each = [
            super(TestPRX, self).draw(pipe, [prompt], settings, scale, **{**more, "generator": [generator]}).images
            for prompt, generator in zip(prompts, more["generator"], strict=True)
        ]
        return SimpleNamespace(images=np.concatenate(each))
