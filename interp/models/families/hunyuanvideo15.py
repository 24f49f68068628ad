"""HunyuanVideo 1.5, text to video (`HunyuanVideo15Transformer3DModel`, `HunyuanVideo15Pipeline`), as in diffusers 0.42.

All blocks are double blocks: they return (image, text), with an AdaLN-Zero projection per stream. Image tokens are (frame, y,
x). The gates depend on the timestep alone. `temb` enters again in `norm_out`. The first channels of the transformer's first
argument are the latents. Those of a picture to begin with, and their mask, come after them and are zero here.

The text has a fixed length, under a mask: 256 tokens for the words in quotes (the glyphs), 1000 for the prompt, 729 for the
picture, which are hidden. The transformer moves masked tokens to the end, so a token's position depends on its row's prompt.

The pipeline's own guidance is a component (a guider) that no argument turns off, and it cannot be missing. Loading disables it.
The autoencoder fails on more than one video unless it takes them one by one (`enable_slicing`), which loading turns on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from interp.base.errors import InputError, ModelError
from interp.models.anatomy import Anatomy, Conditioning, Inputs, Norm, Reentry
from interp.models.families.blocks import IMAGE_FIRST, ROWS, double_block, numbered, text_stream, video_stream
from interp.models.families.calls import Settings, falling_to_zero, patch_layout, video_layout
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance, PipelineSpec
from interp.models.families.schedules import Levels
from interp.models.lazy import torch

TEXT_INPUTS = ("encoder_hidden_states", "encoder_attention_mask", "encoder_hidden_states_2", "encoder_attention_mask_2")
DOUBLE = double_block(order=IMAGE_FIRST, rows=(*ROWS, "attention_mask"))


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it; `hidden_states` gives only the dtype."""
    of_dtype = torch.empty(0, dtype=transformer.dtype)
    return {"temb": transformer.time_embed(inputs["timestep"].to(transformer.dtype)), "hidden_states": of_dtype}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `HunyuanVideo15Transformer3DModel`."""
    if transformer.config.use_meanflow:
        raise ModelError("HunyuanVideo15Transformer3DModel: weights that take a second timestep (MeanFlow) cannot be traced")
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    return Anatomy(
        family="hunyuanvideo15",
        model_class="HunyuanVideo15Transformer3DModel",
        streams=(video_stream(width), text_stream(width)),
        blocks=numbered(transformer, transformer_blocks=DOUBLE),
        row_inputs=("hidden_states", *TEXT_INPUTS, "image_embeds", "timestep"),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning),
        last_norm=Norm("norm_out.norm"),
        forks=False,
    )


def settings(pipe: Any) -> dict[str, Any]:
    """The number of frames; an error if the guider is enabled, or the autoencoder takes videos in batches."""
    if pipe.guider._enabled:
        raise ModelError(
            "HunyuanVideo15Pipeline: its guider is enabled, and no argument turns it off; call pipe.guider.disable() and pass "
            "the pipeline to interp.wrap"
        )
    if not pipe.vae.use_slicing:
        raise ModelError(
            "HunyuanVideo15Pipeline: its autoencoder fails on more than one video at once; call pipe.vae.enable_slicing() and "
            "pass the pipeline to interp.wrap"
        )
    return {"num_frames": 121}


def after_loading(pipe: Any) -> None:
    """Disable the guider; decode videos one by one."""
    pipe.guider.disable()
    pipe.vae.enable_slicing()


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a video of height x width pixels."""
    length = pipe.vision_num_semantic_tokens + pipe.tokenizer_2_max_length + pipe.tokenizer_max_length
    still = patch_layout(pipe, height, width, length, scale=pipe.vae_scale_factor_spatial)
    still = dataclasses.replace(still, latents={**still.latents, "latent_channel": pipe.num_channels_latents})
    return video_layout(still, settings["num_frames"], pipe.vae_scale_factor_temporal, pipe.transformer.config.patch_size_t)


def text_states(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """The text tokens and their masks, of the prompt and of its glyphs, as the transformer takes them."""
    found = pipe.encode_prompt(texts, batch_size=len(texts), dtype=pipe.transformer.dtype)
    return dict(zip(TEXT_INPUTS, found, strict=True))


def own_tokens(pipe: Any, texts: list[str], settings: Settings) -> np.ndarray[Any, Any]:
    """A prompt's own tokens, (text, token): the transformer puts those of both encoders before all others."""
    with torch.no_grad():
        states = text_states(pipe, texts, settings)
    counts = sum(np.asarray(states[name].bool().sum(dim=1).cpu()) for name in TEXT_INPUTS[1::2])
    every = pipe.vision_num_semantic_tokens + pipe.tokenizer_2_max_length + pipe.tokenizer_max_length
    return np.asarray(np.arange(every) < np.asarray(counts)[:, None])


def default_size(pipe: Any) -> tuple[int, int]:
    """The height and width that the pipeline chooses for its weights, pixels."""
    width, height = pipe.default_aspect_ratio
    chosen = pipe.video_processor.calculate_default_height_width(height, width, pipe.target_size)
    return int(chosen[0]), int(chosen[1])


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The scale of the pipeline's guider; `None` where it is off, an error where it is not u + scale (c - u) at every step."""
    guider = given["self"].guider
    if not guider._enabled:
        return None
    usual = {"guidance_rescale": 0.0, "use_original_formulation": False, "start": 0.0, "stop": 1.0}
    plain = type(guider).__name__ == "ClassifierFreeGuidance"
    if not plain or any(guider.config[name] != value for name, value in usual.items()):
        raise InputError(
            "guided: this guider of HunyuanVideo15Pipeline is not u + scale (c - u) at every step, so no guidance can be added "
            "to it; call pipe.guider.disable(), or use interp.generate(guidance=...)"
        )
    return float(guider.guidance_scale) if guider.guidance_scale != 1 else None


PIPELINE = PipelineSpec(
    pipeline_class="HunyuanVideo15Pipeline",
    layout=layout,
    guidance_off={},
    default_size=default_size,
    settings=settings,
    after_loading=after_loading,
    conditions=lambda pipe, texts, settings: {},
    text_states=text_states,
    own_tokens=own_tokens,
    unconditional=lambda pipe, negative, settings: text_states(pipe, [negative], settings),
    levels=Levels(falling_to_zero),
    moving=True,
)
FAMILY = ModelFamily(
    "hunyuanvideo15", "HunyuanVideo15Transformer3DModel", describe, (PIPELINE,), OwnGuidance("calls", own_scale)
)
