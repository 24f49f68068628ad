"""`DetailGuider` in diffusers' modular SD3 pipeline equals `ClassifierFree + DetailGuidance` here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from messages import refused

import interp
from interp.guidance import ClassifierFree, DetailGuidance
from interp.integrations.diffusers import DetailGuider
from interp.models import tiny
from interp.models.load import adopt
from interp.models.quiet import quiet
from interp.tracing.model import Model

STEPS = 3


@pytest.fixture(scope="module")
def model() -> Model:
    with quiet():
        pipe, defaults = tiny.make("sd3")
    pipe.set_progress_bar_config(disable=True)
    return Model(adopt(pipe, "tiny", defaults=defaults, device="cpu"))


def modular(model: Model, guider: Any, **more: Any) -> np.ndarray:
    """Last latents of diffusers' modular pipeline."""
    from diffusers.modular_pipelines.stable_diffusion_3 import StableDiffusion3AutoBlocks

    with quiet():
        pipe = StableDiffusion3AutoBlocks().init_pipeline()
        pipe.update_components(**model.pipe.components, guider=guider)
        pipe.set_progress_bar_config(disable=True)
        latents = pipe(
            prompt="a red cat",
            num_inference_steps=STEPS,
            height=64,
            width=64,
            max_sequence_length=model.settings()["max_sequence_length"],
            generator=torch.Generator().manual_seed(0),
            output_type="np",
            output="latents",
            **more,
        )
    return latents.numpy()


@pytest.mark.parametrize(("scale", "w"), [(4.0, 1.5), (1.0, 1.5), (4.0, 0.0), (1.0, 0.0)])
def test_the_guider_equals_guidance_here(scale: float, w: float, model: Model) -> None:
    detail = DetailGuidance(channels=[2, 5], block=1, scale=w)
    found = modular(model, DetailGuider.of(detail, scale), negative_prompt="")
    expected = interp.generate(model, ["a red cat"], steps=STEPS, seeds=[0], guidance=ClassifierFree(scale) + detail)
    np.testing.assert_allclose(found, expected["latents"], rtol=1e-4, atol=1e-5)
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.pipe.transformer.modules()]
    assert not sum(hooks)


def test_it_needs_channels_and_one_scale() -> None:
    with refused(interp.InputError, "channels", "block"):
        DetailGuider()
    with refused(interp.InputError, "scale", "steps"):
        DetailGuider.of(DetailGuidance(channels=1, block=1, scale=1.0, steps="0-3"))


def test_a_pipeline_without_unconditional_inputs_is_not_guided_in_silence(model: Model) -> None:
    with refused(interp.InputError, 'negative_prompt=""'):
        modular(model, DetailGuider.of(DetailGuidance(channels=[2], block=1, scale=1.0), 4.0))
