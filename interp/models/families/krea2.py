"""Krea 2 (`Krea2Transformer2DModel`, `Krea2Pipeline`), as in diffusers 0.42.

Every block takes and returns one state, text first. AdaLN is projected once for all blocks from the timestep. Each block
receives it as an argument and adds its own table. The chunks are scale, shift and gate, and both streams share them. Text does
not enter the gates. Attention multiplies its values by a sigmoid of its own input before its last layer. That gate differs from
token to token and is a part of the branch. Another embedding of the timestep enters again in `final_layer`. All norms are RMS
norms.

A text token has the states of several layers of the text encoder, (batch, token, layer, channel). The transformer joins them
before the blocks. The text has a fixed length, under a mask: padding is between the prompt and the template's last tokens.

The pipeline's own guidance is c + scale (c - u), on above 0. Distilled weights have a fixed shift of the noise levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from interp.models.anatomy import Anatomy, Conditioning, Inputs, Modulation, Reentry, Tap, Timestep
from interp.models.families.blocks import image_stream, mlp_taps, numbered, single_block, text_stream
from interp.models.families.calls import (
    denormalise,
    encoder,
    falling,
    normalise,
    pack,
    packed_layout,
    text_pipeline,
    unmasked,
)
from interp.models.families.pipeline import ModelFamily, OwnGuidance
from interp.models.families.schedules import Levels, dynamic_shift
from interp.models.hook_points import given_chunks
from interp.models.lazy import torch

TABLE = "scale_shift_table"
CHUNKS = ("scale.attn", "shift.attn", "alpha.attn", "scale.mlp", "shift.mlp", "alpha.mlp")
SINGLE = single_block(
    Modulation("image", None, CHUNKS, partial(given_chunks, "temb", table=TABLE), argument="temb", table=TABLE),
    (
        Tap("image", "modulated", "attn", "attn", "input"),
        Tap("image", "branch", "attn", "attn"),
        *mlp_taps("image", "norm2", "ff"),
    ),
    rows=("hidden_states", "temb", "attention_mask"),
    norms=(),
)
FIXED_SHIFT = 1.15  # of the distilled weights
encode = encoder(encoder_hidden_states=0, encoder_attention_mask=1)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN argument, as the transformer's forward computes it."""
    embedded = transformer.time_embed(inputs["timestep"], dtype=transformer.dtype)
    return {"temb": transformer.time_mod_proj(torch.nn.functional.gelu(embedded, approximate="tanh"))}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `Krea2Transformer2DModel`."""
    return Anatomy(
        family="krea2",
        model_class="Krea2Transformer2DModel",
        streams=(image_stream(transformer.hidden_size), text_stream(transformer.hidden_size)),
        blocks=numbered(transformer, transformer_blocks=SINGLE),
        row_inputs=("hidden_states", "encoder_hidden_states", "timestep", "encoder_attention_mask"),
        reentries=(Reentry("final_layer", "temb"),),
        timestep=Timestep(scale=1000.0),
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning),
    )


def unpack(pipe: Any, latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Packed tokens to (row, channel, frame, y, x) of one frame."""
    spatial: torch.Tensor = pipe._unpack_latents(latents, height, width)
    return spatial


def shift(pipe: Any, tokens: int, steps: int) -> float:
    """The shift of the noise levels, which distilled weights fix."""
    return FIXED_SHIFT if pipe.config.is_distilled else dynamic_shift(pipe, tokens, steps)


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The scale of u + scale (c - u): one more than the pipeline's."""
    return 1.0 + given["guidance_scale"] if given["guidance_scale"] > 0 else None


PIPELINE = text_pipeline(
    "Krea2Pipeline",
    packed_layout,
    encode,
    guidance_off={"guidance_scale": 0.0},
    default_size=lambda pipe: (1024, 1024),
    unpack=unpack,
    pack=lambda pipe, latents: pack(pipe, latents[:, :, 0]),
    to_autoencoder=denormalise,
    from_autoencoder=normalise,
    moving=True,
    levels=Levels(falling, shift=shift),
    own_tokens=unmasked(encode, "encoder_attention_mask"),
)
FAMILY = ModelFamily("krea2", "Krea2Transformer2DModel", describe, (PIPELINE,), OwnGuidance("calls", own_scale))
