"""Wan 2.1, text to video (`WanTransformer3DModel`, `WanPipeline`), as in diffusers 0.42: text through cross-attention.

There is one stream, with tokens (frame, y, x). As in PixArt, AdaLN is projected once from the timestep and every block adds its
own table, here in float32. Text does not enter the gates. Cross-attention (`attn2`) has no gate. After the blocks, the embedded
timestep enters again outside any module. `num_frames=1` generates pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from interp.base.errors import ModelError
from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Norm, Reentry, Tap
from interp.models.families.described import ModelFamily
from interp.models.families.pipeline import Layout, OwnGuidance, PipelineSpec, check_frames, no_conditions
from interp.models.families.pixart import tabled
from interp.models.families.qwenimage import from_autoencoder, to_autoencoder
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
            tabled("temb", wide=True),
            Tap("image", "modulated", "attn", "attn1", "input"),
            Tap("image", "branch", "attn", "attn1"),
            Tap("image", "branch", "attn2", "attn2", gated=False),
            *mlp_taps("image", "norm3", "ffn"),
        ),
        row_inputs=("hidden_states", "encoder_hidden_states", "temb"),
        state_inputs={"image": "hidden_states"},
        norms=(Norm("norm1"), Norm("norm3")),
        attention=("attn1.to_v", "attn1.to_out.0"),
    )


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN argument, as the transformer's forward computes it; the text does not matter and is one token."""
    import torch

    timestep = inputs["timestep"]
    no_text = torch.zeros(len(timestep), 1, transformer.config.text_dim, dtype=transformer.dtype, device=timestep.device)
    _, given, _, _ = transformer.condition_embedder(timestep, no_text)
    return {"temb": given.unflatten(1, (6, -1))}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `WanTransformer3DModel`."""
    config = transformer.config
    return Anatomy(
        family="wan",
        model_class="WanTransformer3DModel",
        channels=config.num_attention_heads * config.attention_head_dim,
        blocks=tuple(block(f"blocks.{index}") for index in range(len(transformer.blocks))),
        row_inputs=("hidden_states", "encoder_hidden_states", "timestep"),
        reentries=(Reentry("condition_embedder", item=0),),
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning),
        last_norm=Norm("norm_out"),
        forks=False,
    )


def settings(pipe: Any) -> dict[str, Any]:
    """Frames and text length; an error unless one transformer and one timestep serve all tokens."""
    if pipe.config.boundary_ratio is not None or getattr(pipe, "transformer_2", None) is not None:
        raise ModelError("WanPipeline: two transformers (Wan 2.2 14B) cannot be traced; use Wan 2.1")
    if pipe.config.expand_timesteps:
        raise ModelError("WanPipeline: a timestep per token (Wan 2.2 5B) cannot be traced; use Wan 2.1")
    return {"max_sequence_length": 512, "num_frames": 81}


def layout(pipe: Any, height: int, width: int, settings: Mapping[str, Any]) -> Layout:
    """Tokens and latents of a video of height x width pixels."""
    config, frames, every = pipe.transformer.config, settings["num_frames"], pipe.vae_scale_factor_temporal
    check_frames(frames, every)
    of_time, of_y, of_x = config.patch_size
    latent_frames = (frames - 1) // every + 1
    rows, columns = height // pipe.vae_scale_factor_spatial, width // pipe.vae_scale_factor_spatial
    return Layout(
        image_grid=(rows // of_y, columns // of_x),
        text_tokens=0,
        latents={"latent_channel": config.in_channels, "latent_frame": latent_frames, "latent_y": rows, "latent_x": columns},
        pixel_multiple=math.lcm(16, pipe.vae_scale_factor_spatial * of_y),
        token_frames=latent_frames // of_time,
        frames=frames,
    )


def text_states(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The text tokens, (batch, token, channel)."""
    length = settings["max_sequence_length"]
    return {"encoder_hidden_states": pipe.encode_prompt(texts, None, False, max_sequence_length=length)[0]}


OWN_GUIDANCE = OwnGuidance("calls", lambda given: given["guidance_scale"] if given["guidance_scale"] > 1 else None)
PIPELINE = PipelineSpec(
    pipeline_class="WanPipeline",
    layout=layout,
    guidance_off={"guidance_scale": 1.0},
    default_size=lambda pipe: (480, 832),
    settings=settings,
    tokenizers={"tokenizer": "max_sequence_length"},
    settings_maximum={"max_sequence_length": 512},
    conditions=no_conditions,
    text_states=text_states,
    unconditional=lambda pipe, negative, settings: text_states(pipe, [negative], settings),
    to_autoencoder=to_autoencoder,
    from_autoencoder=from_autoencoder,
    moving=True,
)
FAMILY = ModelFamily("wan", "WanTransformer3DModel", describe, (PIPELINE,), OWN_GUIDANCE)
