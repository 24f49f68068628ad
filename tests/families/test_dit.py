"""DiT: class-conditional, with learned sigma."""

from __future__ import annotations

from typing import Any

import torch

from interp.testing import FamilyTests


class TestDiT(FamilyTests):
    name = kind = "dit"
    published = {
        "dit-xl": ({"class-conditional": 28}, 1152, ("attn", "mlp"), (0.6, 0.8)),
    }
    prompts = ("cat", "7", "dog", "999")  # names and numbers of classes

    def hooks(self, transformer: Any, seen: Any) -> None:
        for index, block in enumerate(transformer.transformer_blocks):
            seen.states_after(block, index)
            seen.gates_after(block.norm1, index, ["image"], {"attn": 1, "mlp": 4})

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        return {"class_labels": torch.tensor([1000])}

    def arguments(self, pipe: Any, prompts: list[str], settings: Any, scale: float) -> dict[str, Any]:
        labels = [int(pipe.labels.get(text, text)) for text in prompts]
        return {"class_labels": labels, "guidance_scale": scale}
