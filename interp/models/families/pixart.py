"""PixArt-alpha and PixArt-Sigma (`PixArtTransformer2DModel`), as in diffusers 0.42: one stream, text through cross-attention.

A block returns its image state alone. AdaLN is projected once for all blocks (`adaln_single`) from the timestep. Each block
receives it as an argument and adds its own table. Text does not enter the gates. Cross-attention (`attn2`) has no gate. After
the blocks, the embedded timestep enters again outside any module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Modulation, Norm, Reentry, Tap, given_chunks
from interp.models.families.described import ModelFamily
from interp.models.families.pipeline import Layout, OwnGuidance, PipelineSpec
from interp.models.families.sd3 import ADALN_ZERO, mlp_taps

if TYPE_CHECKING:
    from torch import Tensor

CROSS_INPUTS = ("hidden_states", "encoder_hidden_states", "encoder_attention_mask", "timestep")


def tabled(argument: str, *, wide: bool = False) -> Modulation:
    """AdaLN values that a block receives as an argument and adds its table to."""
    compute = partial(given_chunks, argument, table="scale_shift_table", wide=wide)
    return Modulation("image", None, ADALN_ZERO, compute, argument=argument, table="scale_shift_table")


def block(path: str) -> Block:
    """A block: gated self-attention, cross-attention without a gate, gated MLP."""
    return Block(
        path=path,
        kind="cross",
        hidden={"image": None},
        reads=(
            tabled("timestep"),
            Tap("image", "modulated", "attn", "attn1", "input"),
            Tap("image", "branch", "attn", "attn1"),
            Tap("image", "branch", "attn2", "attn2", gated=False),
            *mlp_taps("image", "norm2", "ff"),
        ),
        row_inputs=CROSS_INPUTS,
        state_inputs={"image": "hidden_states"},
        norms=(Norm("norm1"), Norm("norm2")),
        attention=("attn1.to_v", "attn1.to_out.0"),
    )


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN argument, as the transformer's forward computes it."""
    timestep, size = inputs["timestep"], inputs.get("added_cond_kwargs")
    given, _ = transformer.adaln_single(timestep, size, batch_size=len(timestep), hidden_dtype=transformer.dtype)
    return {"timestep": given}


def position(transformer: Any, grid: tuple[int, int]) -> Tensor:
    """The position embedding of a picture of grid (y, x) tokens, (token, channel): the embedding of zeros minus its bias."""
    import torch

    embed, config = transformer.pos_embed, transformer.config
    sides = [side * config.patch_size for side in grid]
    nothing = torch.zeros(1, config.in_channels, *sides, device=transformer.device, dtype=transformer.dtype)
    with torch.no_grad():
        bias = embed.proj(nothing).flatten(2).transpose(1, 2)
        placed: Tensor = (embed(nothing) - bias)[0]
    return placed


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `PixArtTransformer2DModel`."""
    sized = ("added_cond_kwargs",) if transformer.use_additional_conditions else ()
    return Anatomy(
        family="pixart",
        model_class="PixArtTransformer2DModel",
        channels=transformer.inner_dim,
        blocks=tuple(block(f"transformer_blocks.{index}") for index in range(len(transformer.transformer_blocks))),
        row_inputs=(*CROSS_INPUTS, *sized),
        reentries=(Reentry("adaln_single", item=1),),
        position=position,
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning, further=sized),
        last_norm=Norm("norm_out"),
        forks=False,
    )


def conditions(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """No text; the default size, where the weights take the picture's size."""
    import torch

    if not pipe.transformer.use_additional_conditions:
        return {}
    height, width = default_size(pipe)
    size = torch.tensor([[height, width]] * len(texts), dtype=pipe.transformer.dtype, device=pipe._execution_device)
    return {"added_cond_kwargs": {"resolution": size, "aspect_ratio": size[:, :1] / size[:, 1:]}}


def text_states(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The text tokens and their mask, as the transformer takes them."""
    length = settings["max_sequence_length"]
    states, mask, _, _ = pipe.encode_prompt(texts, False, max_sequence_length=length)
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


def default_size(pipe: Any) -> tuple[int, int]:
    """The size in the weights' config, pixels."""
    side = pipe.transformer.config.sample_size * pipe.vae_scale_factor
    return side, side


def layout(pipe: Any, height: int, width: int, settings: Mapping[str, Any]) -> Layout:
    """Tokens and latents; a learned sigma never enters the latents."""
    config = pipe.transformer.config
    rows, columns = height // pipe.vae_scale_factor, width // pipe.vae_scale_factor
    return Layout(
        image_grid=(rows // config.patch_size, columns // config.patch_size),
        text_tokens=0,
        latents={"latent_channel": config.in_channels, "latent_y": rows, "latent_x": columns},
        pixel_multiple=pipe.vae_scale_factor * config.patch_size,
        prediction=("epsilon", "sigma") if config.out_channels == 2 * config.in_channels else ("epsilon",),
    )


OWN_GUIDANCE = OwnGuidance("uncond first", lambda given: given["guidance_scale"] if given["guidance_scale"] > 1 else None)
ALPHA = PipelineSpec(
    pipeline_class="PixArtAlphaPipeline",
    layout=layout,
    guidance_off={"guidance_scale": 1.0, "use_resolution_binning": False, "clean_caption": False},
    default_size=default_size,
    settings=lambda pipe: {"max_sequence_length": 120},
    tokenizers={"tokenizer": "max_sequence_length"},
    settings_maximum={"max_sequence_length": 512},
    conditions=conditions,
    text_states=text_states,
    unconditional=lambda pipe, negative, settings: text_states(pipe, [negative], settings),
)
SIGMA = dataclasses.replace(ALPHA, pipeline_class="PixArtSigmaPipeline", settings=lambda pipe: {"max_sequence_length": 300})
FAMILY = ModelFamily(
    "pixart",
    "PixArtTransformer2DModel",
    describe,
    (
        ALPHA,
        SIGMA,
    ),
    OWN_GUIDANCE,
)
