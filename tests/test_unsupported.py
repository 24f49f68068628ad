"""Pipelines and layers that an operation cannot take: each is refused with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import PROMPTS
from messages import refused

import interp
from interp.experiments.descriptors import extractor
from interp.experiments.kinds.disrupt import disrupt
from interp.guidance import DetailGuidance
from interp.interventions import ZeroNormsKept
from interp.models import tiny

pytestmark = pytest.mark.filterwarnings("ignore::interp.InterpWarning")


def test_pipelines_of_two_transformers_are_refused() -> None:
    pipe, _ = tiny.make("wan")
    pipe.register_to_config(boundary_ratio=0.9)
    with refused(interp.ModelError, "two transformers"):
        interp.wrap(pipe)


def test_norms_that_cannot_be_held_are_refused_or_left_out(ltx_model: interp.Model, tmp_path: Path) -> None:
    edit = ZeroNormsKept(channels=[3], blocks=1)
    with refused(interp.ModelError, "LTXVideoTransformer3DModel", "ZeroNormsKept"):
        interp.generate(ltx_model, PROMPTS[:1], steps=2, interventions=[edit])
    experiment = disrupt(ltx_model, PROMPTS[:1], out=tmp_path / "d.zarr", channels=[3], blocks=[1], steps=2)
    assert not any(arm.name.startswith("norms") for arm in experiment.arms)
    assert "arms left out" in experiment.parameters["norms"]


def test_a_pipelines_guider_is_left_out_and_refused(hunyuanimage_model: interp.Model, tmp_path: Path) -> None:
    """HunyuanImage's published folder names guiders, which no argument turns off."""
    from diffusers.guiders import AdaptiveProjectedMixGuidance

    pipe, _ = tiny.make("hunyuanimage")
    pipe.register_modules(guider=AdaptiveProjectedMixGuidance())
    with refused(interp.ModelError, "guider", "pipe.guider"):
        interp.wrap(pipe)
    with refused(interp.InputError, "HunyuanImagePipeline", "guider"):
        pipe_of(hunyuanimage_model, AdaptiveProjectedMixGuidance())
    pipe.save_pretrained(tmp_path / "guiding")
    loaded = interp.load(tmp_path / "guiding")
    assert loaded.pipe.guider is None
    assert interp.generate(loaded, PROMPTS[:1], steps=2, height=64, width=64)["image"].shape == (1, 64, 64, 3)


def pipe_of(model: interp.Model, guider: Any) -> None:
    """Call the plain pipeline with a guider inside `interp.guided`."""
    model.pipe.register_modules(guider=guider)
    try:
        with interp.guided(model.pipe, DetailGuidance(channels=[3], block=1, scale=1.0)):
            model.pipe(PROMPTS[:1], num_inference_steps=2, height=64, width=64)
    finally:
        model.pipe.register_modules(guider=None)


@pytest.mark.parametrize("name", ["mochi_model", "hunyuandit_model", "ltx_model"])
def test_descriptors_need_a_layer_norm(name: str, request: pytest.FixtureRequest) -> None:
    with refused(interp.ModelError, "block 1", "LayerNorm"):
        extractor(request.getfixturevalue(name), PROMPTS[:1], channels=[3], steps=2)


def test_texts_of_other_lengths_are_not_in_one_call(qwenimage21_model: interp.Model, tmp_path: Path) -> None:
    """A trace sees one call a step, and an unconditional branch would need another; nor can one of two rows' texts change."""
    with refused(interp.InputError, "guidance", "interp.generate"):
        interp.trace(qwenimage21_model, PROMPTS[:1], out=tmp_path / "guided.zarr", steps=2, guidance="cfg:3")
    swap = interp.interventions.SwapConditioning.of(qwenimage21_model, prompt="a photo of a red circle", tokens=True)
    with refused(interp.InputError, "length", "one row"), interp.interventions.edited(qwenimage21_model, [swap]):
        qwenimage21_model.pipe(["a cat", "a dog"], num_inference_steps=1, height=64, width=64)


def test_pipelines_that_set_levels_or_sizes_are_refused() -> None:
    pipe, _ = tiny.make("qwenimage21")
    pipe.register_to_config(sample_sigmas=[1.0, 0.5])
    with refused(interp.ModelError, "sample_sigmas"):
        interp.generate(interp.wrap(pipe), PROMPTS[:1], steps=2, height=64, width=64)
    sized, _ = tiny.make("kandinsky5")
    with refused(interp.InputError, "height", "1024 x 1024", "64 x 64", "resolutions"):
        interp.generate(interp.wrap(sized), PROMPTS[:1], steps=2, height=64, width=64)
