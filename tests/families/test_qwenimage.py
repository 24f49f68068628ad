"""Qwen-Image: prompts are encoded, then padded under a mask; its pipeline rescales its own guidance."""

from __future__ import annotations

from typing import Any

import torch

from interp.testing import FamilyTests


class TestQwenImage(FamilyTests):
    name = kind = "qwenimage"
    published = {
        "qwen-image": ({"joint": 60}, 3072, ("attn", "mlp"), (20.0, 20.8)),
    }
    unread = [f"block.2/text/{site}" for site in ("alpha.attn", "alpha.mlp", "shift.mlp", "scale.mlp")]
    own_guidance = False  # it brings the guided prediction to the conditional one's size: tests/test_guidance.py

    def hooks(self, transformer: Any, seen: Any) -> None:
        """A block returns (text, image); `img_mod` and `txt_mod` give six chunks each."""
        for index, block in enumerate(transformer.transformer_blocks):
            seen.states_after(block, index, ("text", "image"))
            seen.gates_after(block.img_mod, index, ["image"], {"attn": 2, "mlp": 5}, chunks=6)
            seen.gates_after(block.txt_mod, index, ["text"], {"attn": 2, "mlp": 5}, chunks=6)

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        states, mask = self.padded(pipe, [""], settings["max_sequence_length"])
        return {"encoder_hidden_states": states, "encoder_hidden_states_mask": mask}

    def arguments(self, pipe: Any, prompts: list[str], settings: Any, scale: float) -> dict[str, Any]:
        states, mask = self.padded(pipe, prompts, settings["max_sequence_length"])
        return {"prompt_embeds": states, "prompt_embeds_mask": mask, "true_cfg_scale": scale, **settings}

    def padded(self, pipe: Any, prompts: list[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Each prompt encoded by itself, padded with zeros that the mask hides."""
        states = torch.zeros(len(prompts), length, pipe.text_encoder.config.text_config.hidden_size)
        mask = torch.zeros(len(prompts), length, dtype=torch.long)
        with torch.no_grad():
            for row, encoded in enumerate(pipe.encode_prompt([prompt])[0][0] for prompt in prompts):
                states[row, : len(encoded)], mask[row, : len(encoded)] = encoded, 1
        return states, mask
