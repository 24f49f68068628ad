"""Bria 3.2: FLUX.1's blocks with gates of the timestep alone; text padded with zeros, and zeros in place of no prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from messages import refused
from test_flux import TestFlux as _Flux

import interp
from interp.guidance import ClassifierFree, DetailGuidance
from interp.models import tiny
from interp.testing import FamilyTests
from interp.testing.family import generators


class TestBria(FamilyTests):
    name = kind = "bria"
    published = {
        "bria-3.2": ({"double": 8, "single": 28}, 2304, ("attn", "mlp"), (3.7, 3.9)),
    }

    hooks = _Flux.hooks
    order = ("text", "image")

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        return {"encoder_hidden_states": torch.zeros(1, settings["max_sequence_length"], pipe.text_encoder.config.d_model)}

    def test_a_negative_prompt_is_encoded(self, model: interp.Model) -> None:
        """Latents as of the pipeline's own guidance, to rounding; no prompt gives others."""
        size = {"height": 32, "width": 32}
        own = {"guidance_scale": 3.0, "num_inference_steps": 3, "generator": generators(1, 0), "output_type": "latent"}
        expected = model.pipe("a red cat", negative_prompt="the dog", **own, **size, **model.settings()).images.numpy()
        more = {"steps": 3, "seeds": [0], "guidance": ClassifierFree(3.0), **size}
        found = {
            negative: interp.generate(model, ["a red cat"], negative_prompt=negative, **more)["latents"].to_numpy()
            for negative in ("", "the dog")
        }
        np.testing.assert_allclose(found["the dog"], expected, rtol=1e-4, atol=1e-5)
        assert not np.allclose(found[""], expected, atol=1e-3)

    def test_other_noise_levels_and_a_rescaled_guidance_are_refused(self, model: interp.Model) -> None:
        with (
            refused(interp.InputError, "BriaPipeline", "normalize=True"),
            interp.guided(model.pipe, DetailGuidance(channels=[2], block=1, scale=1.0)),
        ):
            model.pipe("a red cat", height=32, width=32, num_inference_steps=1, normalize=True, max_sequence_length=8)
        pipe, _ = tiny.make("bria")
        pipe.register_modules(scheduler=FlowMatchEulerDiscreteScheduler())
        with refused(interp.ModelError, "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting=True"):
            interp.wrap(pipe, "bria")
