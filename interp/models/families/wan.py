"""Wan 2.1 and Wan 2.2 5B, text to video (`WanTransformer3DModel`, `WanPipeline`), as in diffusers 0.42: text through
cross-attention.

There is one stream, with tokens (frame, y, x). As in PixArt, AdaLN is projected once from the timestep and every block adds its
own table, here in float32. Text does not enter the gates. Cross-attention (`attn2`) has no gate. After the blocks, the embedded
timestep enters again outside any module. `num_frames=1` generates pictures.

Wan 2.2 5B receives a timestep for every token. In text to video all are the same, and so are the gates: they are read at a
row's first token and edited in all. Wan 2.2 14B, which has two transformers, is refused.
"""

from __future__ import annotations

from typing import Any

from interp.base.errors import ModelError
from interp.models.anatomy import Anatomy, Conditioning, Inputs, Norm, Reentry
from interp.models.families.blocks import cross_block, mlp_taps, numbered, tabled, video_stream
from interp.models.families.calls import Settings, denormalise, encoder, normalise, patch_layout, text_pipeline, video_layout
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance
from interp.models.lazy import torch

CROSS = cross_block(
    tabled("temb", wide=True),
    *mlp_taps("image", "norm3", "ffn"),
    rows=("hidden_states", "encoder_hidden_states", "temb"),
    norms=("norm1", "norm3"),
)
encode = encoder(encoder_hidden_states=0)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN argument, as the transformer's forward computes it; the text does not matter and is one token."""
    timestep = inputs["timestep"]
    timestep = timestep[:, 0] if timestep.ndim == 2 else timestep
    no_text = torch.zeros(len(timestep), 1, transformer.config.text_dim, dtype=transformer.dtype, device=timestep.device)
    _, given, _, _ = transformer.condition_embedder(timestep, no_text)
    return {"temb": given.unflatten(1, (6, -1))}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `WanTransformer3DModel`."""
    return Anatomy(
        family="wan",
        model_class="WanTransformer3DModel",
        streams=(video_stream(transformer.config.num_attention_heads * transformer.config.attention_head_dim),),
        blocks=numbered(transformer, blocks=CROSS),
        row_inputs=("hidden_states", "encoder_hidden_states", "timestep"),
        reentries=(Reentry("condition_embedder", item=0),),
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning),
        last_norm=Norm("norm_out"),
        forks=False,
    )


def settings(pipe: Any) -> dict[str, Any]:
    """Frames and text length; an error unless one transformer serves all steps."""
    if pipe.config.boundary_ratio is not None or getattr(pipe, "transformer_2", None) is not None:
        raise ModelError("WanPipeline: two transformers (Wan 2.2 14B) cannot be traced; use Wan 2.1 or Wan 2.2 5B")
    return {"max_sequence_length": 512, "num_frames": 121 if pipe.config.expand_timesteps else 81}


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a video of height x width pixels."""
    still = patch_layout(pipe, height, width, scale=pipe.vae_scale_factor_spatial, least=16)
    of_time = pipe.transformer.config.patch_size[0]
    return video_layout(still, settings["num_frames"], pipe.vae_scale_factor_temporal, of_time)


PIPELINE = text_pipeline(
    "WanPipeline",
    layout,
    encode,
    default_size=lambda pipe: (704, 1280) if pipe.config.expand_timesteps else (480, 832),
    settings=settings,
    to_autoencoder=denormalise,
    from_autoencoder=normalise,
    moving=True,
)
FAMILY = ModelFamily("wan", "WanTransformer3DModel", describe, (PIPELINE,), OwnGuidance("calls"))
