"""LTX-Video, text to video (`LTXVideoTransformer3DModel`, `LTXPipeline`), as in diffusers 0.42: text through cross-attention.

There is one stream, with tokens (frame, y, x). A block returns its state alone. As in PixArt, AdaLN is projected once from the
timestep; each block receives it as an argument and adds its own table. Text does not enter the gates. Cross-attention (`attn2`)
has no gate and reads the state without a norm. After the blocks, the embedded timestep enters again outside any module.

The blocks' norms are RMS norms, which subtract no mean, so none is listed as a LayerNorm. The scheduler's latents are tokens,
(row, token, channel). The frame rate enters through the positions. `num_frames=1` generates pictures.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from interp.base.errors import ModelError
from interp.models.anatomy import Anatomy, Conditioning, Inputs, Reentry
from interp.models.families.blocks import cross_block, mlp_taps, numbered, tabled, video_stream
from interp.models.families.calls import Settings, encoder, falling, patch_layout, text_pipeline, video_layout
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance, scale_without_rescaling
from interp.models.families.schedules import Levels
from interp.models.lazy import torch

CROSS = cross_block(
    tabled("temb"),
    *mlp_taps("image", "norm2", "ff"),
    rows=("hidden_states", "encoder_hidden_states", "temb", "encoder_attention_mask"),
)
encode = encoder(encoder_hidden_states=0, encoder_attention_mask=1)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN argument, (batch, 1, 6 * channel), as the transformer's forward computes it."""
    timestep = inputs["timestep"]
    given, _ = transformer.time_embed(timestep.flatten(), batch_size=len(timestep), hidden_dtype=transformer.dtype)
    return {"temb": given.view(len(timestep), -1, given.shape[-1])}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of an `LTXVideoTransformer3DModel`."""
    return Anatomy(
        family="ltx",
        model_class="LTXVideoTransformer3DModel",
        streams=(video_stream(transformer.config.num_attention_heads * transformer.config.attention_head_dim),),
        blocks=numbered(transformer, transformer_blocks=CROSS),
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


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a video of height x width pixels: a latent is a token."""
    size, every = pipe.vae_spatial_compression_ratio, pipe.vae_temporal_compression_ratio
    still = patch_layout(pipe, height, width, scale=size, least=32)
    video = video_layout(still, settings["num_frames"], every)
    latents = {"latent_token": video.tokens("image"), "latent_channel": pipe.transformer.config.in_channels}
    return dataclasses.replace(video, latents=latents)


def unpack(pipe: Any, latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Tokens to (row, channel, frame, y, x)."""
    rows, columns = height // pipe.vae_spatial_compression_ratio, width // pipe.vae_spatial_compression_ratio
    spatial: torch.Tensor = pipe._unpack_latents(latents, latents.shape[1] // (rows * columns), rows, columns)
    return spatial


def to_autoencoder(pipe: Any, latents: torch.Tensor) -> Any:
    """Denormalise latents for the autoencoder."""
    vae = pipe.vae
    if vae.config.timestep_conditioning:
        raise ModelError(
            "LTXPipeline: an autoencoder that takes a timestep (LTX-Video 0.9.1 and later) cannot decode latents here"
        )
    return pipe._denormalize_latents(latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)


def from_autoencoder(pipe: Any, latents: torch.Tensor) -> Any:
    """The inverse."""
    vae = pipe.vae
    return pipe._normalize_latents(latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)


PIPELINE = text_pipeline(
    "LTXPipeline",
    layout,
    encode,
    default_size=lambda pipe: (512, 704),
    settings=settings,
    unpack=unpack,
    pack=lambda pipe, latents: pipe._pack_latents(latents),
    levels=Levels(falling),
    to_autoencoder=to_autoencoder,
    from_autoencoder=from_autoencoder,
    moving=True,
)
FAMILY = ModelFamily(
    "ltx",
    "LTXVideoTransformer3DModel",
    describe,
    (PIPELINE,),
    OwnGuidance("uncond first", scale_without_rescaling, follows=True),
)
