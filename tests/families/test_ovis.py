"""Ovis-Image: FLUX.1's blocks with SwiGLU MLPs and gates of the timestep alone; an instruction before the prompt is cut off."""

from __future__ import annotations

from typing import Any

from test_flux import TestFlux as _Flux

from interp.testing import FamilyTests


class TestOvis(FamilyTests):
    name = kind = "ovis"
    published = {
        "ovis-image": ({"double": 6, "single": 27}, 3072, ("attn", "mlp"), (7.0, 7.5)),
    }

    hooks = _Flux.hooks
    order = ("text", "image")

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        return {"encoder_hidden_states": pipe.encode_prompt("", do_classifier_free_guidance=False, **settings)[0]}
