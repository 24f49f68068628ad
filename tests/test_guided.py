"""`interp.guided` on a user's own pipeline: other methods, callbacks, exceptions, image-to-image, LoRA, refusals.

That it joins every family's own guidance is in `interp.testing.FamilyTests`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from conftest import every_family, family_of, prompts_for
from messages import refused

import interp
from interp.guidance import APG, ClassifierFree, DetailGuidance, PerturbedAttention, SkipLayer
from interp.models import tiny
from interp.models.quiet import quiet
from interp.testing.family import generators

STEPS = 3
DG = DetailGuidance(channels=[2, 5], block=1, scale=1.5)


def arguments(model: interp.Model, name: str, scale: float) -> dict[str, Any]:
    """The plain pipeline's own arguments for two prompts."""
    size = {"height": 64, "width": 64} if model.loaded.spec.takes_size else {}
    more = {"num_inference_steps": STEPS, "generator": generators(2, 0), "output_type": "np", **size}
    return {**family_of(name).arguments(model.pipe, prompts_for(name)[:2], model.settings(), scale), **more}


def own(model: interp.Model, name: str, scale: float, guidance: Any = None) -> np.ndarray:
    with contextlib.nullcontext() if guidance is None else interp.guided(model.pipe, guidance):
        output = model.pipe(**arguments(model, name, scale))
    return family_of(name).pictures(output).astype(float)


def ours(model: interp.Model, name: str, guidance: Any) -> np.ndarray:
    drawn = interp.generate(model, prompts_for(name)[:2], steps=STEPS, batch_size=2, seeds="shared", guidance=guidance)
    return drawn["image"].to_numpy().astype(float)


@pytest.mark.parametrize(
    "guidance", [SkipLayer(blocks=1, scale=2.0), PerturbedAttention(blocks=1, scale=2.0), DG + SkipLayer(blocks=2, scale=1.0)]
)
@pytest.mark.parametrize("name", ["tiny_model", "flux_model", "dit_model"])
def test_the_others_on_a_pipeline(name: str, guidance: Any, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    assert np.abs(own(model, name, 3.0, guidance) - ours(model, name, ClassifierFree(3.0) + guidance)).max() <= 1


@pytest.mark.parametrize("name", every_family(["tiny_model", "flux_model", "dit_model"], without=["hunyuanimage_model"]))
def test_a_pipeline_with_its_own_guidance_off(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    before = own(model, name, 1.0)
    found = own(model, name, 1.0, DG)
    assert np.abs(found - ours(model, name, DG)).max() <= 1
    assert np.abs(found - before).max() > 1
    np.testing.assert_array_equal(own(model, name, 1.0), before)


def test_windows_and_callbacks(tiny_model: interp.Model) -> None:
    windowed = DetailGuidance(channels=[2, 5], block=1, scale=1.5, steps="1-2")
    seen: list[int] = []

    def callback(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        seen.append(step)
        return given

    with interp.guided(tiny_model.pipe, windowed):
        images = tiny_model.pipe(**arguments(tiny_model, "tiny_model", 3.0), callback_on_step_end=callback).images
        again = tiny_model.pipe(**arguments(tiny_model, "tiny_model", 3.0)).images  # a second picture counts its steps anew
    assert seen == [0, 1, 2]
    np.testing.assert_array_equal(images, again)
    expected = ours(tiny_model, "tiny_model", ClassifierFree(3.0) + windowed)
    assert np.abs((images * 255).round() - expected).max() <= 1


def test_an_exception_leaves_nothing_behind(tiny_model: interp.Model) -> None:
    pipe = tiny_model.pipe
    kind, before = type(pipe), own(tiny_model, "tiny_model", 3.0)

    def fail(*given: Any, **named: Any) -> Any:
        raise KeyError("on purpose")

    with pytest.raises(KeyError), interp.guided(pipe, DG):
        pipe(**arguments(tiny_model, "tiny_model", 3.0), callback_on_step_end=fail)
    assert type(pipe) is kind
    assert not sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in pipe.transformer.modules())
    np.testing.assert_array_equal(own(tiny_model, "tiny_model", 3.0), before)


def test_image_to_image(tiny_model: interp.Model) -> None:
    """Another pipeline around the same transformer."""
    from diffusers import StableDiffusion3Img2ImgPipeline

    with quiet():
        pipe = StableDiffusion3Img2ImgPipeline(**tiny_model.pipe.components)
    pipe.set_progress_bar_config(disable=True)
    given: dict[str, Any] = {
        "prompt": "a red cat",
        "image": torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
    }
    given |= {"strength": 0.7, "num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "np", "max_sequence_length": 8}
    plain = pipe(**given, generator=torch.Generator().manual_seed(0)).images
    with interp.guided(pipe, DG):
        found = pipe(**given, generator=torch.Generator().manual_seed(0)).images
    assert np.abs(found - plain).max() > 1e-3


def test_lora_weights_are_guided_too() -> None:
    import peft

    pipe, _ = tiny.make("sd3")
    pipe.set_progress_bar_config(disable=True)
    pipe.transformer.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    given: dict[str, Any] = {
        "prompt": "a red cat",
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
        "output_type": "np",
        "height": 64,
        "width": 64,
    }
    plain = pipe(**given, generator=torch.Generator().manual_seed(0), max_sequence_length=8).images
    with interp.guided(pipe, DG):
        found = pipe(**given, generator=torch.Generator().manual_seed(0), max_sequence_length=8).images
    assert np.abs(found - plain).max() > 1e-3


def test_what_cannot_be_guided_is_refused(tiny_model: interp.Model) -> None:
    with (
        refused(interp.InputError, "apg", "guidance"),
        interp.guided(tiny_model.pipe, APG(4.0)),
    ):
        pass
    with refused(interp.InputError, "pipeline", "call"), interp.guided(tiny_model.pipe, DG):
        pass
    with refused(interp.InputError, "blocks", "0..3", 9):
        own(tiny_model, "tiny_model", 3.0, DetailGuidance(channels=[2], block=9, scale=1.0))
    block = tiny_model.pipe.transformer.transformer_blocks[0]
    compiled = torch.compile(block)
    tiny_model.pipe.transformer.transformer_blocks[0] = compiled
    try:
        with refused(interp.ModelError, "compiled", "transformer"), interp.guided(tiny_model.pipe, DG):
            pass
    finally:
        tiny_model.pipe.transformer.transformer_blocks[0] = block


def test_a_registered_class_is_guided_too(tiny_model: interp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transformer class of one's own joins its pipeline's own guidance once it is registered with it."""
    from interp.models import families
    from interp.models.families import sd3

    for table in ("ANATOMIES", "PIPELINES", "OWN_GUIDANCE"):
        monkeypatch.setattr(families, table, dict(getattr(families, table)))
        for user in ("interp.guidance.pipes", "interp.models.load"):
            monkeypatch.setattr(f"{user}.{table}", getattr(families, table), raising=False)
    pipe, _ = tiny.make("sd3")
    pipe.set_progress_bar_config(disable=True)
    pipe.transformer.__class__ = type("MyDiT", (type(pipe.transformer),), {})

    def describe(transformer: Any) -> interp.Anatomy:
        return dataclasses.replace(sd3.describe(transformer), family="mine", model_class="MyDiT")

    given = arguments(tiny_model, "tiny_model", 3.0)
    interp.register_anatomy("MyDiT", describe, sd3.PIPELINE)
    with refused(interp.InputError, "guidance", "own_guidance", "register_anatomy"), interp.guided(pipe, DG):
        pipe(**given)
    interp.register_anatomy("MyDiT", describe, sd3.PIPELINE, sd3.OWN_GUIDANCE)
    with interp.guided(pipe, DG):
        found = pipe(**{**given, "generator": generators(2, 0)}).images
    with interp.guided(tiny_model.pipe, DG):
        expected = tiny_model.pipe(**arguments(tiny_model, "tiny_model", 3.0)).images
    np.testing.assert_array_equal(found, expected)
