"""LongCat-Image: FLUX.1's blocks with gates of the timestep alone; its pipeline rewrites prompts and rescales its guidance."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from messages import refused
from test_flux import TestFlux as _Flux

import interp
from interp.guidance import DetailGuidance
from interp.testing import FamilyTests


class TestLongCat(FamilyTests):
    name = kind = "longcat"
    published = {
        "longcat-image": ({"double": 10, "single": 20}, 3072, ("attn", "mlp"), (6.0, 6.5)),
    }
    call = {"enable_prompt_rewrite": False, "enable_cfg_renorm": False}

    hooks = _Flux.hooks
    order = ("text", "image")

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        return {"encoder_hidden_states": pipe.encode_prompt("")[0]}

    def test_a_rescaled_guidance_is_refused(self, model: interp.Model) -> None:
        """As the pipeline's defaults rescale it; `cfg_renorm_min=1` does not."""
        given = {"prompt": "a red cat", "enable_prompt_rewrite": False, "height": 32, "width": 32, "num_inference_steps": 1}
        with interp.guided(model.pipe, DetailGuidance(channels=[2], block=1, scale=1.0)):
            model.pipe(**given, cfg_renorm_min=1.0)
            with refused(interp.InputError, "LongCatImagePipeline", "enable_cfg_renorm=False"):
                model.pipe(**given)

    def test_quoted_words_are_read_letter_by_letter(self, model: interp.Model) -> None:
        """The own tokens of a text are those that the pipeline's encoder attends to, between those of its template."""
        texts, masks = ['a "dog" and', "a red cat", ""], []
        keep = model.pipe.text_encoder.register_forward_pre_hook(
            lambda m, args, named: masks.append(named["attention_mask"]), with_kwargs=True
        )
        with keep, torch.no_grad():
            model.pipe.encode_prompt(texts)
        spec = model.loaded.spec
        assert spec.own_tokens is not None
        own = spec.own_tokens(model.pipe, texts, {})
        assert own.sum(1).tolist() == [8, 3, 0]
        template = int(masks[0][2].sum())
        np.testing.assert_array_equal(masks[0].sum(1) - template, own.sum(1))
