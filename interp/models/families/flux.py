"""FLUX.1 (`FluxTransformer2DModel`, `FluxPipeline`), as in diffusers 0.42.

Double blocks come before single blocks. Both return (text, image). A double block has an AdaLN-Zero projection per stream. A
single block joins the streams, text first. It has one projection and one gate, shared by both streams and by attention and MLP,
which `proj_out` joins. `temb` enters again in `norm_out`. The transformer receives the timestep divided by 1000.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Modulation, Norm, Reentry, Tap
from interp.models.families.described import ModelFamily
from interp.models.families.pipeline import Layout, OwnGuidance, PipelineSpec
from interp.models.families.sd3 import ADALN_ZERO, BLOCK_ROW_INPUTS, TWO_STREAM_NORMS, mlp_taps, project

if TYPE_CHECKING:
    from torch import Tensor

ADALN_ZERO_SINGLE = ("shift.attn", "scale.attn", "alpha.attn")
STATES = {"image": "hidden_states", "text": "encoder_hidden_states"}
HIDDEN = {"text": 0, "image": 1}
JOINED = ("text", "image")  # order of the tokens inside a single block


def double_block(path: str) -> Block:
    """A double block: two streams with joint attention."""
    return Block(
        path=path,
        kind="double",
        hidden=HIDDEN,
        reads=(
            Modulation("image", "norm1.linear", ADALN_ZERO, partial(project, "norm1")),
            Tap("image", "modulated", "attn", "norm1", item=0),
            Modulation("text", "norm1_context.linear", ADALN_ZERO, partial(project, "norm1_context")),
            Tap("text", "modulated", "attn", "norm1_context", item=0),
            Tap("image", "branch", "attn", "attn", item=0),
            Tap("text", "branch", "attn", "attn", item=1),
            *mlp_taps("image", "norm2", "ff"),
            *mlp_taps("text", "norm2_context", "ff_context"),
        ),
        row_inputs=BLOCK_ROW_INPUTS,
        state_inputs=STATES,
        norms=TWO_STREAM_NORMS,
        attention=("attn.to_v", "attn.to_out.0"),
    )


def single_block(path: str) -> Block:
    """A single block: both streams joined, attention and MLP in parallel with one gate."""
    return Block(
        path=path,
        kind="single",
        hidden=HIDDEN,
        reads=(
            Modulation("image", "norm.linear", ADALN_ZERO_SINGLE, partial(project, "norm"), shared_with=("text",)),
            *(Tap(stream, "modulated", "attn", "norm", item=0, joint=JOINED) for stream in STATES),
            *(Tap(stream, "branch", "attn", "proj_out", joint=JOINED) for stream in STATES),
        ),
        row_inputs=BLOCK_ROW_INPUTS,
        state_inputs=STATES,
        norms=(Norm("norm.norm", JOINED),),
    )


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it (inputs times 1000); `hidden_states` gives only the dtype."""
    pooled = inputs["pooled_projections"]
    named = [inputs[name].to(pooled.dtype) * 1000 for name in ("timestep", "guidance") if name in inputs]
    return {"temb": transformer.time_text_embed(*named, pooled), "hidden_states": pooled}


def conditions(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The pooled text, (batch, channel), and the embedded guidance where the weights take one."""
    import torch

    length = settings["max_sequence_length"]
    pooled = pipe.encode_prompt(texts, texts, max_sequence_length=length)[1]
    if "embedded_guidance" not in settings:
        return {"pooled_projections": pooled}
    guidance = torch.full((len(texts),), settings["embedded_guidance"], dtype=torch.float32, device=pooled.device)
    return {"pooled_projections": pooled, "guidance": guidance}


def text_states(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The text tokens, (batch, token, channel)."""
    return {"encoder_hidden_states": pipe.encode_prompt(texts, texts, max_sequence_length=settings["max_sequence_length"])[0]}


def unconditional(pipe: Any, negative_prompt: str, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The negative prompt, pooled and as tokens; an embedded guidance is unchanged."""
    length = settings["max_sequence_length"]
    states, pooled = pipe.encode_prompt([negative_prompt], [negative_prompt], max_sequence_length=length)[:2]
    return {"pooled_projections": pooled, "encoder_hidden_states": states}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `FluxTransformer2DModel`: blocks are numbered consecutively, double blocks first."""
    doubles = [double_block(f"transformer_blocks.{index}") for index in range(len(transformer.transformer_blocks))]
    singles = [
        single_block(f"single_transformer_blocks.{index}") for index in range(len(transformer.single_transformer_blocks))
    ]
    guided = ("guidance",) if transformer.config.guidance_embeds else ()
    return Anatomy(
        family="flux",
        model_class="FluxTransformer2DModel",
        channels=transformer.inner_dim,
        blocks=(*doubles, *singles),
        row_inputs=("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", *guided),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        timestep_scale=1000.0,
        conditioning=Conditioning(
            {"timestep": "timestep", "text": "pooled_projections", **{name: name for name in guided}}, block_conditioning
        ),
        last_norm=Norm("norm_out.norm"),
    )


def layout(pipe: Any, height: int, width: int, settings: Mapping[str, Any]) -> Layout:
    """Tokens and latents of a picture of height x width pixels: latents are packed, two by two, into tokens."""
    multiple = 2 * pipe.vae_scale_factor
    rows, columns = height // multiple, width // multiple
    return Layout(
        image_grid=(rows, columns),
        text_tokens=settings["max_sequence_length"],
        latents={"latent_token": rows * columns, "latent_channel": pipe.transformer.config.in_channels},
        pixel_multiple=multiple,
    )


def settings(pipe: Any) -> dict[str, Any]:
    """Text length, and the embedded guidance where the weights take one."""
    guided = {"embedded_guidance": 3.5} if pipe.transformer.config.guidance_embeds else {}
    return {"max_sequence_length": 512, **guided}


def unpack(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Tokens to (row, channel, y, x)."""
    spatial: Tensor = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
    return spatial


def pack(pipe: Any, latents: Tensor) -> Tensor:
    """(row, channel, y, x) to tokens of two by two."""
    packed: Tensor = pipe._pack_latents(latents, *latents.shape)
    return packed


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The scale of true classifier-free guidance; `None` without a negative prompt, as text or encoded."""
    scale = given.get("true_cfg_scale", 1.0)
    encoded = given.get("negative_prompt_embeds") is not None and given.get("negative_pooled_prompt_embeds") is not None
    return scale if scale > 1 and (given.get("negative_prompt") is not None or encoded) else None


OWN_GUIDANCE = OwnGuidance("calls", own_scale)
PIPELINE = PipelineSpec(
    pipeline_class="FluxPipeline",
    layout=layout,
    guidance_off={"true_cfg_scale": 1.0},
    settings=settings,
    tokenizers={"tokenizer": None, "tokenizer_2": "max_sequence_length"},
    argument_of={"embedded_guidance": "guidance_scale"},
    settings_maximum={"max_sequence_length": 512},
    conditions=conditions,
    text_states=text_states,
    unconditional=unconditional,
    unpack=unpack,
    pack=pack,
    sigmas=lambda steps: np.linspace(1.0, 1 / steps, steps),
)
FAMILY = ModelFamily("flux", "FluxTransformer2DModel", describe, (PIPELINE,), OWN_GUIDANCE)
