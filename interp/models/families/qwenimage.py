"""Qwen-Image (`QwenImageTransformer2DModel`, `QwenImagePipeline`, `QwenImageImg2ImgPipeline`), as in diffusers 0.42.

Joint blocks return (text, image). Each stream has a projection of the timestep alone, `img_mod` and `txt_mod`. Text does not
enter the gates. `temb` enters again in `norm_out`. The transformer receives the timestep divided by 1000.

The pipeline pads the text to the longest prompt of its batch, so a row's tokens would depend on the other rows. Here the
pipeline's encoder encodes the prompts, and they are padded to `max_sequence_length` under its mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.base.errors import InputError, ModelError
from interp.models.anatomy import Anatomy, Conditioning, Inputs, Norm, Reentry, Timestep
from interp.models.families.blocks import ATTENTION_INPUTS, called, double_block, image_stream, mlp_taps, numbered, text_stream
from interp.models.families.calls import (
    Settings,
    denormalise,
    falling,
    normalise,
    pack,
    packed_layout,
    text_pipeline,
    unmasked,
    unpack,
)
from interp.models.families.from_pictures import from_picture
from interp.models.families.pipeline import ModelFamily, OwnGuidance
from interp.models.families.schedules import Levels
from interp.models.lazy import torch

JOINT = double_block(
    (called("image", "img_mod"), called("text", "txt_mod"), *ATTENTION_INPUTS),
    mlps=(*mlp_taps("image", "img_norm2", "img_mlp"), *mlp_taps("text", "txt_norm2", "txt_mlp")),
    kind="joint",
    rows=("hidden_states", "encoder_hidden_states", "encoder_hidden_states_mask", "temb"),
    norms=(Norm("img_norm1"), Norm("txt_norm1", ("text",)), Norm("img_norm2"), Norm("txt_norm2", ("text",))),
)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it; `hidden_states` gives only the dtype."""
    of_dtype = torch.empty(0, dtype=transformer.dtype)
    return {"temb": transformer.time_text_embed(inputs["timestep"].to(transformer.dtype), of_dtype)}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `QwenImageTransformer2DModel`."""
    if transformer.config.zero_cond_t or transformer.config.use_additional_t_cond:
        raise ModelError("QwenImageTransformer2DModel: weights with zero_cond_t or use_additional_t_cond cannot be traced")
    return Anatomy(
        family="qwenimage",
        model_class="QwenImageTransformer2DModel",
        streams=(image_stream(transformer.inner_dim), text_stream(transformer.inner_dim)),
        blocks=numbered(transformer, transformer_blocks=JOINT),
        row_inputs=("hidden_states", "encoder_hidden_states", "encoder_hidden_states_mask", "timestep", "img_shapes"),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        timestep=Timestep(scale=1000.0),
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning),
        last_norm=Norm("norm_out.norm"),
    )


def encode(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """Text tokens, (batch, token, channel), padded to `max_sequence_length`, and their mask, (batch, token)."""
    length = settings["max_sequence_length"]
    with torch.no_grad():
        states, mask = pipe.encode_prompt(texts, max_sequence_length=length)
    mask = states.new_ones(states.shape[:2], dtype=torch.long) if mask is None else mask
    missing = length - states.shape[1]
    return {
        "encoder_hidden_states": torch.nn.functional.pad(states, (0, 0, 0, missing)),
        "encoder_hidden_states_mask": torch.nn.functional.pad(mask, (0, missing)),
    }


def prompts(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """Prompts as encoded text."""
    return dict(zip(("prompt_embeds", "prompt_embeds_mask"), encode(pipe, texts, settings).values(), strict=True))


def own_scale(given: Mapping[str, Any]) -> float | None:
    """`None`, or an error: this pipeline rescales its guided prediction to the conditional one's norm, per token."""
    negative = given.get("negative_prompt") is not None or given.get("negative_prompt_embeds") is not None
    if given["true_cfg_scale"] > 1 and negative:
        raise InputError(
            "guided: QwenImagePipeline rescales its own guidance, so no guidance can be added to it; call it with "
            "true_cfg_scale=1.0, or use interp.generate(guidance=...)"
        )
    return None


PIPELINE = text_pipeline(
    "QwenImagePipeline",
    packed_layout,
    encode,
    longest=1024,
    guidance_off={"true_cfg_scale": 1.0},
    prompts=prompts,
    unpack=unpack,
    pack=lambda pipe, latents: pack(pipe, latents[:, :, 0]),  # (row, channel, frame, y, x) of one frame
    to_autoencoder=denormalise,
    from_autoencoder=normalise,
    moving=True,
    levels=Levels(falling),
    own_tokens=unmasked(encode, "encoder_hidden_states_mask"),
)
IMG2IMG = from_picture(PIPELINE, "QwenImageImg2ImgPipeline")
FAMILY = ModelFamily("qwenimage", "QwenImageTransformer2DModel", describe, (PIPELINE, IMG2IMG), OwnGuidance("calls", own_scale))
