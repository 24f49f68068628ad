"""FLUX.2, klein and dev: gates shared by all blocks of a kind; single blocks hold both streams in one state."""

from __future__ import annotations

from typing import Any

import pytest

from interp.testing import FamilyTests


class TestFlux2(FamilyTests):
    name = kind = "flux2"
    published = {
        "flux2-klein": ({"double": 5, "single": 20}, 3072, ("attn", "mlp"), (3.7, 4.1)),
        "flux2-klein-9b": ({"double": 8, "single": 24}, 4096, ("attn", "mlp"), (8.8, 9.3)),
        "flux2-dev": ({"double": 8, "single": 48}, 6144, ("attn", "mlp"), (31.5, 32.5)),
    }

    def hooks(self, transformer: Any, seen: Any) -> None:
        """Three projections for all blocks; a single block returns one state, text first."""
        doubles, singles = list(transformer.transformer_blocks), list(transformer.single_transformer_blocks)
        for index, block in enumerate([*doubles, *singles]):
            seen.states_after(block, index, ("text", "image"))
            if index < len(doubles):
                seen.gates_after(transformer.double_stream_modulation_img, index, ["image"], {"attn": 2, "mlp": 5}, chunks=6)
                seen.gates_after(transformer.double_stream_modulation_txt, index, ["text"], {"attn": 2, "mlp": 5}, chunks=6)
            else:
                seen.gates_after(transformer.single_stream_modulation, index, ["image", "text"], {"attn": 2}, chunks=3)

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        return {"encoder_hidden_states": pipe.encode_prompt("", **settings)[0]}


@pytest.mark.long
class TestDev(TestFlux2):
    """An embedded guidance, a system message before the prompt, and no classifier-free guidance of the pipeline's own."""

    name = "flux2dev"
    sizes = {"dev": True}
    own_guidance = False

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        return super().no_prompt(pipe, {"max_sequence_length": settings["max_sequence_length"]})

    def arguments(self, pipe: Any, prompts: list[str], settings: Any, scale: float) -> dict[str, Any]:
        """`guidance_scale` is the embedded one."""
        embedded, length = settings["embedded_guidance"], settings["max_sequence_length"]
        return {"prompt": prompts, "guidance_scale": embedded, "max_sequence_length": length}
