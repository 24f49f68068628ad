"""PixArt-alpha and PixArt-Sigma (`PixArtTransformer2DModel`), as in diffusers 0.42: one stream, text through cross-attention.

A block returns its image state alone. AdaLN is projected once for all blocks (`adaln_single`) from the timestep. Each block
receives it as an argument and adds its own table. Text does not enter the gates. Cross-attention (`attn2`) has no gate. After
the blocks, the embedded timestep enters again outside any module.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from interp.models.anatomy import Anatomy, Conditioning, Inputs, Norm, Reentry
from interp.models.families.blocks import cross_block, image_stream, mlp_taps, numbered, tabled
from interp.models.families.calls import Settings, config_size, encoder, epsilon_and_sigma, patch_layout, text_pipeline
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance
from interp.models.lazy import torch

CROSS_INPUTS = ("hidden_states", "encoder_hidden_states", "encoder_attention_mask", "timestep")
CROSS = cross_block(tabled("timestep"), *mlp_taps("image", "norm2", "ff"), rows=CROSS_INPUTS, norms=("norm1", "norm2"))
encode = encoder(encoder_hidden_states=0, encoder_attention_mask=1)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN argument, as the transformer's forward computes it."""
    timestep, size = inputs["timestep"], inputs.get("added_cond_kwargs")
    given, _ = transformer.adaln_single(timestep, size, batch_size=len(timestep), hidden_dtype=transformer.dtype)
    return {"timestep": given}


def position(transformer: Any, grid: tuple[int, int]) -> torch.Tensor:
    """The position embedding of a picture of grid (y, x) tokens, (token, channel): the embedding of zeros minus its bias."""
    embed, config = transformer.pos_embed, transformer.config
    sides = [side * config.patch_size for side in grid]
    nothing = torch.zeros(1, config.in_channels, *sides, device=transformer.device, dtype=transformer.dtype)
    with torch.no_grad():
        bias = embed.proj(nothing).flatten(2).transpose(1, 2)
        placed: torch.Tensor = (embed(nothing) - bias)[0]
    return placed


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `PixArtTransformer2DModel`."""
    sized = ("added_cond_kwargs",) if transformer.use_additional_conditions else ()
    return Anatomy(
        family="pixart",
        model_class="PixArtTransformer2DModel",
        streams=(image_stream(transformer.inner_dim),),
        blocks=numbered(transformer, transformer_blocks=CROSS),
        row_inputs=(*CROSS_INPUTS, *sized),
        reentries=(Reentry("adaln_single", item=1),),
        position=position,
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning, further=sized),
        last_norm=Norm("norm_out"),
        forks=False,
    )


def conditions(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """No text; the default size, where the weights take the picture's size."""
    if not pipe.transformer.use_additional_conditions:
        return {}
    height, width = config_size(pipe)
    size = torch.tensor([[height, width]] * len(texts), dtype=pipe.transformer.dtype, device=pipe._execution_device)
    return {"added_cond_kwargs": {"resolution": size, "aspect_ratio": size[:, :1] / size[:, 1:]}}


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture; a learned sigma never enters the latents."""
    return patch_layout(pipe, height, width, prediction=epsilon_and_sigma(pipe.transformer))


ALPHA = text_pipeline(
    "PixArtAlphaPipeline",
    layout,
    encode,
    120,
    guidance_off={"guidance_scale": 1.0, "use_resolution_binning": False, "clean_caption": False},
    default_size=config_size,
    conditions=conditions,
)
SIGMA = dataclasses.replace(ALPHA, pipeline_class="PixArtSigmaPipeline", settings=lambda pipe: {"max_sequence_length": 300})
FAMILY = ModelFamily("pixart", "PixArtTransformer2DModel", describe, (ALPHA, SIGMA), OwnGuidance("uncond first"))
