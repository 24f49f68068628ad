"""SANA, SANA 1.5 (`SanaTransformer2DModel`, `SanaPipeline`), as in diffusers 0.42: one stream, text through cross-attention.

As in PixArt, AdaLN is projected once from the timestep and every block adds its own table. Text does not enter the gates.
Cross-attention (`attn2`) has no gate. Self-attention is linear. The MLP is a convolution over the picture. The embedded
timestep enters again in `norm_out`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Norm, Reentry, Tap
from interp.models.families.described import ModelFamily
from interp.models.families.pipeline import Layout, OwnGuidance, PipelineSpec, no_conditions
from interp.models.families.pixart import CROSS_INPUTS, default_size, tabled

if TYPE_CHECKING:
    from torch import Tensor


def block(path: str) -> Block:
    """A block: gated linear self-attention, cross-attention without a gate, gated convolutions."""
    return Block(
        path=path,
        kind="cross",
        hidden={"image": None},
        reads=(
            tabled("timestep"),
            Tap("image", "modulated", "attn", "attn1", "input"),
            Tap("image", "branch", "attn", "attn1"),
            Tap("image", "branch", "attn2", "attn2", gated=False),
            Tap("image", "mid", None, "norm2", "input"),
            Tap("image", "modulated", "mlp", "ff", "input", spatial=True),
            Tap("image", "branch", "mlp", "ff", spatial=True),
        ),
        row_inputs=CROSS_INPUTS,
        state_inputs={"image": "hidden_states"},
        norms=(Norm("norm1"), Norm("norm2")),
        attention=("attn1.to_v", "attn1.to_out.0"),
    )


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN argument, as the transformer's forward computes it."""
    timestep = inputs["timestep"]
    if "guidance" in inputs:
        given, _ = transformer.time_embed(timestep, guidance=inputs["guidance"], hidden_dtype=transformer.dtype)
    else:
        given, _ = transformer.time_embed(timestep, batch_size=len(timestep), hidden_dtype=transformer.dtype)
    return {"timestep": given}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `SanaTransformer2DModel`."""
    config = transformer.config
    guided = ("guidance",) if config.guidance_embeds else ()
    return Anatomy(
        family="sana",
        model_class="SanaTransformer2DModel",
        channels=config.num_attention_heads * config.attention_head_dim,
        blocks=tuple(block(f"transformer_blocks.{index}") for index in range(len(transformer.transformer_blocks))),
        row_inputs=(*CROSS_INPUTS, *guided),
        reentries=(Reentry("norm_out", "temb"),),
        timestep_scale=1.0 / config.timestep_scale,
        conditioning=Conditioning({"timestep": "timestep", **{name: name for name in guided}}, block_conditioning),
        last_norm=Norm("norm_out.norm"),
        forks=False,
    )


def text_states(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The text tokens of prompts under the pipeline's instruction, and their mask."""
    instruction = inspect.signature(type(pipe).__call__).parameters["complex_human_instruction"].default
    return encoded(pipe, texts, settings, instruction)


def unconditional(pipe: Any, negative_prompt: str, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The negative prompt, without the pipeline's instruction."""
    return encoded(pipe, [negative_prompt], settings, None)


def encoded(pipe: Any, texts: list[str], settings: Mapping[str, Any], instruction: list[str] | None) -> dict[str, Tensor]:
    """The text tokens and their mask, as the transformer takes them."""
    length = settings["max_sequence_length"]
    states, mask, _, _ = pipe.encode_prompt(texts, False, max_sequence_length=length, complex_human_instruction=instruction)
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


def layout(pipe: Any, height: int, width: int, settings: Mapping[str, Any]) -> Layout:
    """Tokens and latents of a picture of height x width pixels."""
    config = pipe.transformer.config
    rows, columns = height // pipe.vae_scale_factor, width // pipe.vae_scale_factor
    return Layout(
        image_grid=(rows // config.patch_size, columns // config.patch_size),
        text_tokens=0,
        latents={"latent_channel": config.in_channels, "latent_y": rows, "latent_x": columns},
        pixel_multiple=math.lcm(32, pipe.vae_scale_factor * config.patch_size),
    )


OWN_GUIDANCE = OwnGuidance("uncond first", lambda given: given["guidance_scale"] if given["guidance_scale"] > 1 else None)
PIPELINE = PipelineSpec(
    pipeline_class="SanaPipeline",
    layout=layout,
    guidance_off={"guidance_scale": 1.0, "use_resolution_binning": False},
    default_size=default_size,
    settings=lambda pipe: {"max_sequence_length": 300},
    tokenizers={"tokenizer": "max_sequence_length"},
    settings_maximum={"max_sequence_length": 300},
    conditions=no_conditions,
    text_states=text_states,
    unconditional=unconditional,
)
FAMILY = ModelFamily("sana", "SanaTransformer2DModel", describe, (PIPELINE,), OWN_GUIDANCE)
