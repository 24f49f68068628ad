"""`interp.guided` on the calls that people make: each equals a loop written by hand, or is refused with a reason.

By hand: c, u and a degraded d from three calls of the transformer at every step, combined as u + s (c - u) + w (c - d).
"""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from messages import refused
from torch import Tensor

import interp
from interp.guidance import DetailGuidance, SkipLayer
from interp.interventions import Zero
from interp.interventions.hooks import edited
from interp.models.quiet import quiet

STEPS, WEIGHT, SCALE, CHANNELS, BLOCK = 4, 1.5, 3.0, [2, 5], 1
DG = DetailGuidance(channels=CHANNELS, block=BLOCK, scale=WEIGHT)
PROMPTS = ["a red cat", "two dog"]
Scales = Callable[[int], float]
"""step -> the scale of the pipeline's own guidance; 1 where it is off."""


@pytest.fixture
def pipe(tiny_folder: Any) -> Any:
    return interp.load(tiny_folder).pipe


def call(pipe: Any, prompts: Any = PROMPTS, **more: Any) -> np.ndarray:
    seeds = more.pop("seeds", [0] * (len(prompts) if isinstance(prompts, list) else 1))
    given = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "height": 64, "width": 64, "max_sequence_length": 8}
    given |= {"prompt": prompts, "output_type": "latent", "generator": [torch.Generator().manual_seed(s) for s in seeds]}
    found: np.ndarray = pipe(**{**given, **more}).images.float().numpy()
    return found


def by_hand(pipe: Any, scales: Scales, weights: Scales, prompts: list[str] = PROMPTS, **more: Any) -> np.ndarray:
    """The same pictures from a loop of its own: three calls of the transformer at every step."""
    seeds = more.get("seeds", [0] * len(prompts))
    with torch.no_grad(), quiet():
        texts, no_text, pooled, no_pooled = pipe.encode_prompt(prompts, prompts, prompts, max_sequence_length=8)
        shape = (1, pipe.transformer.config.in_channels, 64 // pipe.vae_scale_factor, 64 // pipe.vae_scale_factor)
        latents = torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        latents = more.get("latents", latents)
        pipe.scheduler.set_timesteps(**more.get("schedule", {"num_inference_steps": STEPS}))
        begin = more.get("begin", 0)
        pipe.scheduler.set_begin_index(begin)
        for step, timestep in enumerate(pipe.scheduler.timesteps[begin:], begin):
            times = timestep.expand(len(latents))

            def predict(states: Tensor, pool: Tensor, x: Tensor = latents, t: Tensor = times) -> Tensor:
                out: Tensor = pipe.transformer(x, states, pool, t, return_dict=False)[0]
                return out

            c, u = predict(texts, pooled), predict(no_text, no_pooled)
            handle = pipe.transformer.transformer_blocks[BLOCK].register_forward_hook(zeroed)
            d = predict(texts, pooled)
            handle.remove()
            guided = u + scales(step) * (c - u) + weights(step) * (c - d)
            latents = pipe.scheduler.step(guided, timestep, latents, return_dict=False)[0]
    return latents.numpy()


def zeroed(module: Any, arguments: Any, output: Any) -> Any:
    text, image = output
    image = image.clone()
    image[..., CHANNELS] = 0
    return text, image


def same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def always(value: float) -> Scales:
    return lambda step: value


def test_two_prompts(pipe: Any) -> None:
    with interp.guided(pipe, DG):
        found = call(pipe)
    same(found, by_hand(pipe, always(SCALE), always(WEIGHT)))


def test_its_own_guidance_off(pipe: Any) -> None:
    with interp.guided(pipe, DG):
        found = call(pipe, guidance_scale=1.0)
    same(found, by_hand(pipe, always(1.0), always(WEIGHT)))


def ended(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
    """diffusers' own recipe to end its guidance after a step: scale 1 (off), and the conditional half of the prompts."""
    if step == 1:
        pipe._guidance_scale = 1.0
        given = {name: value.chunk(2)[-1] if "prompt" in name else value for name, value in given.items()}
    return given


TENSORS = ["latents", "prompt_embeds", "pooled_prompt_embeds"]


def test_a_callback_that_ends_its_guidance(pipe: Any) -> None:
    with interp.guided(pipe, DG):
        found = call(pipe, callback_on_step_end=ended, callback_on_step_end_tensor_inputs=TENSORS)
    same(found, by_hand(pipe, lambda step: SCALE if step < 2 else 1.0, always(WEIGHT)))


def test_a_callback_that_ramps_its_guidance(pipe: Any) -> None:
    def ramp(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        pipe._guidance_scale = SCALE + step + 1
        return given

    with interp.guided(pipe, DG):
        found = call(pipe, callback_on_step_end=ramp)
    same(found, by_hand(pipe, lambda step: SCALE + step, always(WEIGHT)))


def test_a_callback_that_stops_the_call(pipe: Any) -> None:
    def stop(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = step >= 1
        return given

    with interp.guided(pipe, DG):
        call(pipe, callback_on_step_end=stop)
        pipe._interrupt = False
        found = call(pipe)
    same(found, by_hand(pipe, always(SCALE), always(WEIGHT)))


def test_a_window(pipe: Any) -> None:
    with interp.guided(pipe, DetailGuidance(channels=CHANNELS, block=BLOCK, scale=WEIGHT, steps="1-2")):
        found = call(pipe)
    same(found, by_hand(pipe, always(SCALE), lambda step: WEIGHT * (step in (1, 2))))


def test_a_schedule_of_weights_with_sigmas(pipe: Any) -> None:
    weights, sigmas = [0.5, 1.0, 1.5], [1.0, 0.7, 0.3]
    with interp.guided(pipe, DetailGuidance(channels=CHANNELS, block=BLOCK, scale=weights)):
        found = call(pipe, sigmas=sigmas)
    same(found, by_hand(pipe, always(SCALE), lambda step: weights[step], schedule={"sigmas": sigmas}))


def test_a_schedule_of_another_length_is_refused(pipe: Any) -> None:
    with (
        refused(interp.InputError, "scale", "3", "2"),
        interp.guided(pipe, DetailGuidance(channels=CHANNELS, block=BLOCK, scale=[1.0, 2.0])),
    ):
        call(pipe, sigmas=[1.0, 0.7, 0.3])


def image_to_image(pipe: Any) -> Any:
    from diffusers import StableDiffusion3Img2ImgPipeline

    with quiet():
        made = StableDiffusion3Img2ImgPipeline(**pipe.components)
    made.set_progress_bar_config(disable=True)
    return made


IMAGE = {"image": torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), "strength": 0.5}


def from_image(other: Any, **more: Any) -> np.ndarray:
    given = {"num_inference_steps": 10, "guidance_scale": SCALE, "max_sequence_length": 8, "output_type": "latent"}
    generator = torch.Generator().manual_seed(0)
    found: np.ndarray = other(**{"prompt": PROMPTS[0], **given, **IMAGE, **more}, generator=generator).images.float().numpy()
    return found


def test_image_to_image_counts_the_schedulers_steps(pipe: Any) -> None:
    """Strength 0.5 of ten steps runs steps 5 to 9: a window there acts, and one before is an error."""
    other = image_to_image(pipe)
    plain = from_image(other)
    with interp.guided(other, DG):
        whole = from_image(other)
    with interp.guided(other, DetailGuidance(channels=CHANNELS, block=BLOCK, scale=WEIGHT, steps="5-9")):
        late = from_image(other)
    np.testing.assert_array_equal(late, whole)
    assert np.abs(whole - plain).max() > 1e-3
    with (
        refused(interp.InputError, "dg", "0..4", "5..9"),
        interp.guided(other, DetailGuidance(channels=CHANNELS, block=BLOCK, scale=WEIGHT, steps="0-4")),
    ):
        from_image(other)


def test_several_pictures_of_a_prompt(pipe: Any) -> None:
    with interp.guided(pipe, DG):
        found = call(pipe, PROMPTS[0], num_images_per_prompt=2, generator=[torch.Generator().manual_seed(s) for s in (0, 1)])
    same(found, by_hand(pipe, always(SCALE), always(WEIGHT), [PROMPTS[0]] * 2, seeds=[0, 1]))


def test_embeddings_in_place_of_prompts(pipe: Any) -> None:
    with torch.no_grad():
        encoded = pipe.encode_prompt(PROMPTS, PROMPTS, PROMPTS, max_sequence_length=8)
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    with interp.guided(pipe, DG):
        found = call(pipe, None, **dict(zip(names, encoded, strict=True)), seeds=[0, 0])
    same(found, by_hand(pipe, always(SCALE), always(WEIGHT)))


def test_latents_of_ones_own(pipe: Any) -> None:
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(9))
    with interp.guided(pipe, DG):
        found = call(pipe, latents=latents.clone())
    same(found, by_hand(pipe, always(SCALE), always(WEIGHT), latents=latents))


def test_one_generator_for_the_batch(pipe: Any) -> None:
    plain = call(pipe, generator=torch.Generator().manual_seed(4))
    with interp.guided(pipe, DG):
        found = call(pipe, generator=torch.Generator().manual_seed(4))
        again = call(pipe, generator=torch.Generator().manual_seed(4))
    np.testing.assert_array_equal(found, again)
    assert np.abs(found - plain).max() > 1e-3


def test_a_pipeline_that_shares_the_transformer_is_left_alone(pipe: Any) -> None:
    other = image_to_image(pipe)
    plain = from_image(other)
    with interp.guided(pipe, DG):
        within = from_image(other)
        found = call(pipe)
    np.testing.assert_array_equal(within, plain)
    same(found, by_hand(pipe, always(SCALE), always(WEIGHT)))


def test_the_transformer_called_by_hand_is_left_alone(pipe: Any) -> None:
    with interp.guided(pipe, DG):
        within = by_hand(pipe, always(SCALE), always(0.0))
        found = call(pipe)
    same(within, by_hand(pipe, always(SCALE), always(0.0)))
    same(found, by_hand(pipe, always(SCALE), always(WEIGHT)))


def test_two_pipelines_at_once(pipe: Any, tiny_folder: Any) -> None:
    other = interp.load(tiny_folder).pipe
    with interp.guided(pipe, DG), interp.guided(other, SkipLayer(blocks=2, scale=2.0)):
        found, another = call(pipe), call(other)
    same(found, by_hand(pipe, always(SCALE), always(WEIGHT)))
    with interp.guided(other, SkipLayer(blocks=2, scale=2.0)):
        np.testing.assert_array_equal(call(other), another)


def test_guided_inside_guided_is_refused(pipe: Any) -> None:
    with interp.guided(pipe, DG):
        with refused(interp.InputError, "guided", "a + b"), interp.guided(pipe, SkipLayer(blocks=2, scale=2.0)):
            pass
        found = call(pipe)
    same(found, by_hand(pipe, always(SCALE), always(WEIGHT)))


def test_edits_and_guidance_together(pipe: Any) -> None:
    """Edits act on the rows of every branch."""
    model = interp.wrap(pipe, "tiny")
    zero = Zero(channels=[7], blocks=[0])
    with edited(model, [zero]), interp.guided(pipe, DG):
        found = call(pipe)
    with edited(model, [zero]):
        expected = by_hand(pipe, always(SCALE), always(WEIGHT))
    same(found, expected)


@pytest.mark.parametrize("inside", ["edited", "guided"])
def test_runs_inside_are_refused(inside: str, pipe: Any, tmp_path: Any) -> None:
    model = interp.wrap(pipe, "tiny")
    given: dict[str, Any] = {"steps": 1, "height": 64, "width": 64, "settings": {"max_sequence_length": 8}}
    context = edited(model, [Zero(channels=[7], blocks=[0])]) if inside == "edited" else interp.guided(pipe, DG)
    with context:
        with refused(interp.InputError, "model", f"{inside}(...)", "interventions="):
            interp.trace(model, PROMPTS, out=tmp_path / "run.zarr", **given)
        with refused(interp.InputError, "model", f"{inside}(...)"):
            interp.generate(model, PROMPTS, **given)
        with refused(interp.InputError, "model", f"{inside}(...)"):
            model.run_with_cache(PROMPTS[0], **given)
        call(pipe)
    assert interp.trace(model, PROMPTS, out=tmp_path / "run.zarr", **given).rows_done == 2


def test_an_exception_and_then_a_call(pipe: Any) -> None:
    def fail(*given: Any, **named: Any) -> Any:
        raise KeyError("on purpose")

    with interp.guided(pipe, DG):
        with pytest.raises(KeyError):
            call(pipe, callback_on_step_end=fail)
        found = call(pipe)
    same(found, by_hand(pipe, always(SCALE), always(WEIGHT)))


def test_calls_of_two_threads_are_refused(pipe: Any) -> None:
    inside, go = threading.Event(), threading.Event()

    def wait(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        inside.set()
        go.wait(20)
        return given

    with interp.guided(pipe, DG):
        thread = threading.Thread(target=call, args=(pipe,), kwargs={"callback_on_step_end": wait})
        thread.start()
        inside.wait(20)
        with refused(interp.InputError, "guided", "one at a time"):
            call(pipe)
        go.set()
        thread.join()


def test_a_scale_of_zero_changes_nothing(pipe: Any) -> None:
    plain = call(pipe)
    with interp.guided(pipe, DetailGuidance(channels=CHANNELS, block=BLOCK, scale=0.0)):
        np.testing.assert_array_equal(call(pipe), plain)


def test_a_scheduler_put_in_place_inside(pipe: Any) -> None:
    """Steps are counted on the scheduler that the call uses."""
    window = dataclasses.replace(DG, steps="0-0")
    with interp.guided(pipe, window):
        expected = call(pipe)
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
        found = call(pipe)
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - by_hand(pipe, always(SCALE), always(WEIGHT))).max() > 1e-3, "one step of four is guided"


def test_a_transformer_put_in_place_inside_is_refused(pipe: Any, tiny_folder: Any) -> None:
    with refused(interp.InputError, "guided", "transformer", "before"), interp.guided(pipe, DG):
        pipe.transformer = interp.load(tiny_folder).pipe.transformer
        call(pipe)


def test_every_call_must_reach_the_window(pipe: Any) -> None:
    other = image_to_image(pipe)
    with refused(interp.InputError, "guided", "dg", "0..1"), interp.guided(other, dataclasses.replace(DG, steps="0-1")):
        from_image(other, strength=1.0)
        from_image(other, strength=0.5)


def test_pipelines_with_rows_of_their_own_are_refused(pipe: Any) -> None:
    from diffusers import StableDiffusion3ControlNetPipeline, StableDiffusion3PAGPipeline
    from diffusers.models import SD3ControlNetModel

    parts = {key: part for key, part in pipe.components.items() if key not in ("image_encoder", "feature_extractor")}
    perturbed = StableDiffusion3PAGPipeline(**parts, pag_applied_layers=["blocks.1"])
    with refused(interp.InputError, "guided", "pag_scale", "PerturbedAttention"), interp.guided(perturbed, DG):
        call(perturbed, pag_scale=2.0)
    net = SD3ControlNetModel.from_transformer(pipe.transformer, num_layers=2, num_extra_conditioning_channels=0)
    controlled = StableDiffusion3ControlNetPipeline(**pipe.components, controlnet=net)
    with refused(interp.InputError, "guided", "control_image"), interp.guided(controlled, DG):
        call(controlled, control_image=torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("inside", ["guided", "edited"])
def test_a_copy_made_inside_is_refused(inside: str, pipe: Any) -> None:
    edits = edited(interp.wrap(pipe, "tiny"), [Zero(channels=[7], blocks=[0])])
    with interp.guided(pipe, DG) if inside == "guided" else edits:
        with refused(interp.InputError, "model", "copied", "before"):
            copy.deepcopy(pipe)
        call(pipe)
    assert type(copy.deepcopy(pipe)) is type(pipe)


def test_a_run_inside_a_run_is_refused(pipe: Any, tmp_path: Any) -> None:
    model = interp.wrap(pipe, "tiny")
    small = {"steps": 2, "height": 64, "width": 64}

    def again(progress: Any) -> None:
        interp.generate(model, ["two dog"], **small)

    with refused(interp.InputError, "model", "being traced", "ended"):
        interp.trace(model, ["a red cat"], out=tmp_path / "r.zarr", on_progress=again, **small)
    assert interp.trace(model, ["a red cat"], out=tmp_path / "r.zarr", **small).rows_done == 1
