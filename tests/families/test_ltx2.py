"""LTX-2: two generated streams of different widths, video and sound, each with its own gates and its own prediction."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from messages import refused

import interp
from interp.guidance import DetailGuidance
from interp.models import tiny
from interp.models.families.ltx2 import TEXTS
from interp.testing import FamilyTests

OFF = {"stg_scale": 0.0, "modality_scale": 1.0, "guidance_rescale": 0.0, "audio_guidance_scale": None}
OFF |= {"audio_stg_scale": None, "audio_modality_scale": None, "audio_guidance_rescale": None}
ROWS = {"attn": 2, "mlp": 5, "attn2": 8}
GATES = ("attn", "attn2", "attn3", "mlp")


def keep_gates(seen: Any, block: Any, index: int, given: Any) -> None:
    """The gates of both streams, from a block's arguments and tables; nine rows have a gate of the text."""
    streams = (("image", "temb", "", "video", "temb_ca_gate"), ("audio", "temb_audio", "audio_", "audio", "temb_ca_audio_gate"))
    for stream, argument, prefix, named, ca_gate in streams:
        table = getattr(block, f"{prefix}scale_shift_table")
        rows = table[None] + given[argument].reshape(len(given[argument]), len(table), -1)
        for gate, row in ROWS.items():
            if row < len(table):
                seen.keep_gate((stream,), gate, index, rows[:, row])
        to_the_other = getattr(block, f"{named}_a2v_cross_attn_scale_shift_table")[4]
        seen.keep_gate((stream,), "attn3", index, to_the_other + given[ca_gate][:, 0])


class TestLTX2(FamilyTests):
    name = kind = "ltx2"
    published = {
        "ltx-2": ({"cross": 48}, 4096, ("attn", "attn3", "mlp"), (18.8, 18.95)),
        "ltx-2.3": ({"cross": 48}, 4096, GATES, (18.95, 19.05)),
    }
    call = OFF

    def hooks(self, transformer: Any, seen: Any) -> None:
        for index, block in enumerate(transformer.transformer_blocks):
            seen.states_after(block, index, ("image", "audio"))
            seen.before(block, partial(keep_gates, seen, block, index))

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        states, mask = pipe.encode_prompt(["x"], "", True, max_sequence_length=settings["max_sequence_length"])[2:]
        video, sound, mask = pipe.connectors(states, mask, padding_side="left")
        return dict(zip(TEXTS, (video, sound, mask, mask), strict=True))


@pytest.mark.full
class TestLTX23(TestLTX2):
    """Gates of the attention to the text, too."""

    name = "ltx2.3"
    sizes = {"text_gates": True}


def test_further_guidances_of_the_pipeline_are_refused() -> None:
    pipe, _ = tiny.make("ltx2")
    more: dict[str, Any] = {"height": 32, "width": 32, "num_frames": 3, "num_inference_steps": 2, "max_sequence_length": 8}
    for name, value in (("stg_scale", 1.0), ("audio_modality_scale", 3.0), ("audio_guidance_scale", 7.0)):
        with (
            refused(interp.InputError, name, "audio_guidance_scale=None"),
            interp.guided(pipe, DetailGuidance(channels=[2], block=1, scale=1.0)),
        ):
            pipe("a red cat", guidance_scale=3.0, **{**OFF, name: value}, **more)
