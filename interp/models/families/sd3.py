"""Stable Diffusion 3 (`SD3Transformer2DModel`, `StableDiffusion3Pipeline`, image-to-image, inpainting), as in diffusers 0.42.

Joint blocks return (text, image). Each stream has its own AdaLN-Zero projection of the conditioning `temb`. The last block has
no text output, and its text projection is scale and shift alone. `temb` enters again in `norm_out`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from interp.base.errors import ModelError
from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Modulation, Norm, Reentry, Tap
from interp.models.families.blocks import (
    ADALN_ZERO,
    ATTENTION_OUTPUTS,
    MLPS,
    TWO_STREAM_NORMS,
    double_block,
    image_stream,
    projected,
    text_stream,
)
from interp.models.families.calls import Settings, own_tokens, patch_layout, text_pipeline
from interp.models.families.from_pictures import from_picture, inpainting
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance
from interp.models.lazy import torch

ADALN_CONTINUOUS = ("scale.attn", "shift.attn")
ADALN_ZERO_X = (*ADALN_ZERO, "shift.attn2", "scale.attn2", "alpha.attn2")  # blocks with dual attention


def joint_block(path: str, block: Any) -> Block:
    """A joint block; `block.context_pre_only` marks the last one, `block.use_dual_attention` the first ones of SD3.5-Medium."""
    last, dual = block.context_pre_only, block.use_dual_attention
    first: list[Modulation | Tap] = [projected("image", "norm1", ADALN_ZERO_X if dual else ADALN_ZERO)]
    first += [Tap("image", "modulated", "attn", "norm1", item=0)]
    first += [Tap("image", "modulated", "attn2", "norm1", item=5)] if dual else []
    first += [projected("text", "norm1_context", ADALN_CONTINUOUS if last else ADALN_ZERO)]
    first += [Tap("text", "modulated", "attn", "norm1_context", item=None if last else 0)]
    attention = [*(ATTENTION_OUTPUTS[:1] if last else ATTENTION_OUTPUTS)]
    attention += [Tap("image", "branch", "attn2", "attn2")] if dual else []
    found = double_block(
        first,
        attention=attention,
        mlps=MLPS[:3] if last else MLPS,
        kind="joint-dual" if dual else "joint",
        norms=TWO_STREAM_NORMS[:-1] if last else TWO_STREAM_NORMS,
    )
    return dataclasses.replace(found, path=path, hidden={"image": 1} if last else found.hidden)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it; `hidden_states` gives only the dtype."""
    pooled = inputs["pooled_projections"]
    return {"temb": transformer.time_text_embed(inputs["timestep"], pooled), "hidden_states": pooled}


def position(transformer: Any, grid: tuple[int, int]) -> torch.Tensor:
    """The position embedding of a picture of grid (y, x) tokens: (token, channel)."""
    embed = transformer.pos_embed
    rows, columns = (side * embed.patch_size for side in grid)
    table: torch.Tensor = embed.cropped_pos_embed(rows, columns) if embed.pos_embed_max_size else embed.pos_embed
    return table[0]


def describe(transformer: Any) -> Anatomy:
    """The anatomy of an `SD3Transformer2DModel`."""
    blocks = enumerate(transformer.transformer_blocks)
    return Anatomy(
        family="sd3",
        model_class="SD3Transformer2DModel",
        streams=(image_stream(transformer.inner_dim), text_stream(transformer.inner_dim)),
        blocks=tuple(joint_block(f"transformer_blocks.{index}", block) for index, block in blocks),
        row_inputs=("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep"),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        position=position,
        conditioning=Conditioning({"timestep": "timestep", "text": "pooled_projections"}, block_conditioning),
        last_norm=Norm("norm_out.norm"),
    )


def encode(pipe: Any, texts: list[str], settings: Settings) -> dict[str, torch.Tensor]:
    """The text tokens, (batch, token, channel), and the pooled text, (batch, channel): the only text input of the gates."""
    given = {"do_classifier_free_guidance": False, "max_sequence_length": settings["max_sequence_length"]}
    states, _, pooled, _ = pipe.encode_prompt(texts, texts, texts, **given)
    return {"encoder_hidden_states": states, "pooled_projections": pooled}


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture of height x width pixels."""
    return patch_layout(pipe, height, width, pipe.tokenizer_max_length + settings["max_sequence_length"])


def inpainting_layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """The same, where the transformer takes no mask."""
    if pipe.transformer.config.in_channels != pipe.transformer.out_channels:
        raise ModelError(
            "StableDiffusion3InpaintPipeline: weights that take a mask cannot be traced; use those of text to image"
        )
    return layout(pipe, height, width, settings)


OWN_GUIDANCE = OwnGuidance("uncond first", follows=True)
PIPELINE = text_pipeline(
    "StableDiffusion3Pipeline",
    layout,
    encode,
    256,
    tokenizers={"tokenizer": None, "tokenizer_2": None, "tokenizer_3": "max_sequence_length"},
    gates=("pooled_projections",),
    own_tokens=own_tokens(("tokenizer", None), ("tokenizer_3", "max_sequence_length")),
)
IMG2IMG = from_picture(PIPELINE, "StableDiffusion3Img2ImgPipeline")
INPAINT = inpainting(
    PIPELINE,
    "StableDiffusion3InpaintPipeline",
    layout=inpainting_layout,
    to_autoencoder=lambda pipe, latents: latents / pipe.vae.config.scaling_factor,  # it leaves out the shift
    from_autoencoder=lambda pipe, latents: latents * pipe.vae.config.scaling_factor,
)
FAMILY = ModelFamily("sd3", "SD3Transformer2DModel", describe, (PIPELINE, IMG2IMG, INPAINT), OWN_GUIDANCE)
