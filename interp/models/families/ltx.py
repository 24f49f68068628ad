"""LTX-Video, text to video (`LTXVideoTransformer3DModel`, `LTXPipeline`), as in diffusers 0.42: text through cross-attention.

There is one stream, with tokens (frame, y, x). A block returns its state alone. As in PixArt, AdaLN is projected once from the
timestep; each block receives it as an argument and adds its own table. Text does not enter the gates. Cross-attention (`attn2`)
has no gate and reads the state without a norm. After the blocks, the embedded timestep enters again outside any module.

The blocks' norms are RMS norms, which subtract no mean, so none is listed as a LayerNorm. The scheduler's latents are tokens,
(row, token, channel). The frame rate enters through the positions. `num_frames=1` generates pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.base.errors import InputError, ModelError
from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Reentry, Tap
from interp.models.families.described import ModelFamily
from interp.models.families.pipeline import Layout, OwnGuidance, PipelineSpec, check_frames, no_conditions
from interp.models.families.pixart import tabled
from interp.models.families.sd3 import mlp_taps

if TYPE_CHECKING:
    from torch import Tensor


def block(path: str) -> Block:
    """A block: gated self-attention, cross-attention without a gate, gated MLP."""
    return Block(
        path=path,
        kind="cross",
        hidden={"image": None},
        reads=(
            tabled("temb"),
            Tap("image", "modulated", "attn", "attn1", "input"),
            Tap("image", "branch", "attn", "attn1"),
            Tap("image", "branch", "attn2", "attn2", gated=False),
            *mlp_taps("image", "norm2", "ff"),
        ),
        row_inputs=("hidden_states", "encoder_hidden_states", "temb", "encoder_attention_mask"),
        state_inputs={"image": "hidden_states"},
        attention=("attn1.to_v", "attn1.to_out.0"),
    )


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN argument, (batch, 1, 6 * channel), as the transformer's forward computes it."""
    timestep = inputs["timestep"]
    given, _ = transformer.time_embed(timestep.flatten(), batch_size=len(timestep), hidden_dtype=transformer.dtype)
    return {"temb": given.view(len(timestep), -1, given.shape[-1])}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of an `LTXVideoTransformer3DModel`."""
    config = transformer.config
    return Anatomy(
        family="ltx",
        model_class="LTXVideoTransformer3DModel",
        channels=config.num_attention_heads * config.attention_head_dim,
        blocks=tuple(block(f"transformer_blocks.{index}") for index in range(len(transformer.transformer_blocks))),
        row_inputs=("hidden_states", "encoder_hidden_states", "timestep", "encoder_attention_mask"),
        reentries=(Reentry("time_embed", item=1),),
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning),
        forks=False,
    )


def settings(pipe: Any) -> dict[str, Any]:
    """Text length, frames and frames per second; an error unless a token is a single latent."""
    config = pipe.transformer.config
    if (config.patch_size, config.patch_size_t) != (1, 1):
        raise ModelError(
            "LTXPipeline: weights with a patch size above 1 cannot be traced, as the pipeline positions single latents"
        )
    return {"max_sequence_length": 128, "num_frames": 161, "frame_rate": 25}


def layout(pipe: Any, height: int, width: int, settings: Mapping[str, Any]) -> Layout:
    """Tokens and latents of a video of height x width pixels: a latent is a token."""
    frames, every, size = settings["num_frames"], pipe.vae_temporal_compression_ratio, pipe.vae_spatial_compression_ratio
    check_frames(frames, every)
    latent_frames, rows, columns = (frames - 1) // every + 1, height // size, width // size
    return Layout(
        image_grid=(rows, columns),
        text_tokens=0,
        latents={"latent_token": latent_frames * rows * columns, "latent_channel": pipe.transformer.config.in_channels},
        pixel_multiple=math.lcm(32, size),
        token_frames=latent_frames,
        frames=frames,
    )


def text_states(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The text tokens, (batch, token, channel), and their mask, (batch, token), as the transformer takes them."""
    states, mask, _, _ = pipe.encode_prompt(texts, None, False, max_sequence_length=settings["max_sequence_length"])
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


def unpack(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Tokens to (row, channel, frame, y, x)."""
    rows, columns = height // pipe.vae_spatial_compression_ratio, width // pipe.vae_spatial_compression_ratio
    spatial: Tensor = pipe._unpack_latents(latents, latents.shape[1] // (rows * columns), rows, columns)
    return spatial


def pack(pipe: Any, latents: Tensor) -> Tensor:
    """(row, channel, frame, y, x) to tokens."""
    packed: Tensor = pipe._pack_latents(latents)
    return packed


def to_autoencoder(pipe: Any, latents: Tensor) -> Tensor:
    """Denormalise latents for the autoencoder."""
    vae = pipe.vae
    if vae.config.timestep_conditioning:
        raise ModelError(
            "LTXPipeline: an autoencoder that takes a timestep (LTX-Video 0.9.1 and later) cannot decode latents here"
        )
    raw: Tensor = pipe._denormalize_latents(latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    return raw


def from_autoencoder(pipe: Any, latents: Tensor) -> Tensor:
    """The inverse."""
    vae = pipe.vae
    normal: Tensor = pipe._normalize_latents(latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    return normal


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The pipeline's scale, or an error where it rescales its guided prediction."""
    if given["guidance_scale"] <= 1:
        return None
    if given["guidance_rescale"] > 0:
        raise InputError(
            "guided: with guidance_rescale LTXPipeline rescales its own guidance, so no guidance can be added to it; leave it "
            "at 0, or use interp.generate(guidance=...)"
        )
    return float(given["guidance_scale"])


OWN_GUIDANCE = OwnGuidance("uncond first", own_scale)
PIPELINE = PipelineSpec(
    pipeline_class="LTXPipeline",
    layout=layout,
    guidance_off={"guidance_scale": 1.0},
    default_size=lambda pipe: (512, 704),
    settings=settings,
    tokenizers={"tokenizer": "max_sequence_length"},
    settings_maximum={"max_sequence_length": 512},
    conditions=no_conditions,
    text_states=text_states,
    unconditional=lambda pipe, negative, settings: text_states(pipe, [negative], settings),
    unpack=unpack,
    pack=pack,
    sigmas=lambda steps: np.linspace(1.0, 1 / steps, steps),
    to_autoencoder=to_autoencoder,
    from_autoencoder=from_autoencoder,
    moving=True,
)
FAMILY = ModelFamily("ltx", "LTXVideoTransformer3DModel", describe, (PIPELINE,), OWN_GUIDANCE)
