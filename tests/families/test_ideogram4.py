"""Ideogram 4: one joint state, text before the latents in the transformer's argument and output, guidance by another one."""

from __future__ import annotations

from typing import Any

from messages import refused

import interp
from interp.guidance import DetailGuidance
from interp.models import tiny
from interp.testing import FamilyTests

LENGTH = 64


class TestIdeogram4(FamilyTests):
    name = kind = "ideogram4"
    published = {
        "ideogram-4": ({"single": 34}, 4608, ("attn", "mlp"), (9.2, 9.35)),
    }
    call = {"guidance_schedule": None}
    leading = LENGTH
    unconditional = False
    own_guidance = False

    def hooks(self, transformer: Any, seen: Any) -> None:
        """The last part of the output is the image's."""
        for index, block in enumerate(transformer.layers):

            def keep(output: Any, index: int = index) -> None:
                seen.keep_state("text", index, output[:, :LENGTH])
                seen.keep_state("image", index, output[:, LENGTH:])

            def keep_gates(output: Any, index: int = index) -> None:
                _, attention, _, mlp = output[:, 0].chunk(4, dim=-1)
                seen.keep_gate(("image", "text"), "attn", index, attention.tanh())
                seen.keep_gate(("image", "text"), "mlp", index, mlp.tanh())

            seen.after(block, keep)
            seen.after(block.adaln_modulation, keep_gates)


def test_a_guidance_of_single_steps_is_refused() -> None:
    pipe, _ = tiny.make("ideogram4")
    with (
        refused(interp.InputError, "guidance_schedule=None"),
        interp.guided(pipe, DetailGuidance(channels=[2], block=1, scale=1.0)),
    ):
        pipe("a red cat", height=32, width=32, num_inference_steps=48, max_sequence_length=LENGTH)
