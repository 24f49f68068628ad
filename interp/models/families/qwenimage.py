"""Qwen-Image (`QwenImageTransformer2DModel`, `QwenImagePipeline`), as in diffusers 0.42.

Joint blocks return (text, image). Each stream has a projection of the timestep alone, `img_mod` and `txt_mod`. Text does not
enter the gates. `temb` enters again in `norm_out`. The transformer receives the timestep divided by 1000.

The pipeline pads the text to the longest prompt of its batch, so a row's tokens would depend on the other rows. Here the
pipeline's encoder encodes the prompts, and they are padded to `max_sequence_length` under its mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.base.errors import InputError, ModelError
from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Modulation, Norm, Reentry, Tap
from interp.models.families.described import ModelFamily
from interp.models.families.flux import HIDDEN, STATES
from interp.models.families.pipeline import Layout, OwnGuidance, PipelineSpec, no_conditions
from interp.models.families.sd3 import ADALN_ZERO, mlp_taps

if TYPE_CHECKING:
    from torch import Tensor, nn


def project(module: str, block: nn.Module, inputs: Inputs) -> Tensor:
    """AdaLN projection of one stream, (batch, 6 * channel)."""
    projected: Tensor = block.get_submodule(module)(inputs["temb"])
    return projected


def joint_block(path: str) -> Block:
    """A joint block: two streams with joint attention."""
    return Block(
        path=path,
        kind="joint",
        hidden=HIDDEN,
        reads=(
            Modulation("image", "img_mod", ADALN_ZERO, partial(project, "img_mod")),
            Modulation("text", "txt_mod", ADALN_ZERO, partial(project, "txt_mod")),
            Tap("image", "modulated", "attn", "attn", "input"),
            Tap("text", "modulated", "attn", "attn", "input", argument="encoder_hidden_states"),
            Tap("image", "branch", "attn", "attn", item=0),
            Tap("text", "branch", "attn", "attn", item=1),
            *mlp_taps("image", "img_norm2", "img_mlp"),
            *mlp_taps("text", "txt_norm2", "txt_mlp"),
        ),
        row_inputs=("hidden_states", "encoder_hidden_states", "encoder_hidden_states_mask", "temb"),
        state_inputs=STATES,
        norms=(Norm("img_norm1"), Norm("txt_norm1", ("text",)), Norm("img_norm2"), Norm("txt_norm2", ("text",))),
        attention=("attn.to_v", "attn.to_out.0"),
    )


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it; `hidden_states` gives only the dtype."""
    import torch

    of_dtype = torch.empty(0, dtype=transformer.dtype)
    return {"temb": transformer.time_text_embed(inputs["timestep"].to(transformer.dtype), of_dtype)}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `QwenImageTransformer2DModel`."""
    if transformer.config.zero_cond_t or transformer.config.use_additional_t_cond:
        raise ModelError("QwenImageTransformer2DModel: weights with zero_cond_t or use_additional_t_cond cannot be traced")
    return Anatomy(
        family="qwenimage",
        model_class="QwenImageTransformer2DModel",
        channels=transformer.inner_dim,
        blocks=tuple(joint_block(f"transformer_blocks.{index}") for index in range(len(transformer.transformer_blocks))),
        row_inputs=("hidden_states", "encoder_hidden_states", "encoder_hidden_states_mask", "timestep", "img_shapes"),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        timestep_scale=1000.0,
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning),
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


def encode(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Text tokens, (batch, token, channel), padded to `max_sequence_length`, and their mask, (batch, token)."""
    import torch

    length = settings["max_sequence_length"]
    with torch.no_grad():
        states, mask = pipe.encode_prompt(texts, max_sequence_length=length)
    mask = states.new_ones(states.shape[:2], dtype=torch.long) if mask is None else mask
    missing = length - states.shape[1]
    return torch.nn.functional.pad(states, (0, 0, 0, missing)), torch.nn.functional.pad(mask, (0, missing))


def prompts(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Prompts as encoded text."""
    states, mask = encode(pipe, texts, settings)
    return {"prompt_embeds": states, "prompt_embeds_mask": mask}


def text_states(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The text tokens and their mask, as the transformer takes them."""
    states, mask = encode(pipe, texts, settings)
    return {"encoder_hidden_states": states, "encoder_hidden_states_mask": mask}


def unpack(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Tokens to (row, channel, frame, y, x), one frame."""
    spatial: Tensor = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
    return spatial


def pack(pipe: Any, latents: Tensor) -> Tensor:
    """(row, channel, frame, y, x) of one frame to tokens of two by two."""
    first = latents[:, :, 0]
    packed: Tensor = pipe._pack_latents(first, *first.shape)
    return packed


def normalisation(pipe: Any, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the autoencoder's latents."""
    import torch

    config = pipe.vae.config
    mean, deviation = (
        torch.tensor(values).view(1, -1, 1, 1, 1).to(latents.device, latents.dtype)
        for values in (config.latents_mean, config.latents_std)
    )
    return mean, deviation


def to_autoencoder(pipe: Any, latents: Tensor) -> Tensor:
    """Denormalise latents for the autoencoder."""
    mean, deviation = normalisation(pipe, latents)
    return latents * deviation + mean


def from_autoencoder(pipe: Any, latents: Tensor) -> Tensor:
    """The inverse."""
    mean, deviation = normalisation(pipe, latents)
    return (latents - mean) / deviation


def own_scale(given: Mapping[str, Any]) -> float | None:
    """`None`, or an error: this pipeline rescales its guided prediction to the conditional one's norm, per token."""
    negative = given.get("negative_prompt") is not None or given.get("negative_prompt_embeds") is not None
    if given["true_cfg_scale"] > 1 and negative:
        raise InputError(
            "guided: QwenImagePipeline rescales its own guidance, so no guidance can be added to it; call it with "
            "true_cfg_scale=1.0, or use interp.generate(guidance=...)"
        )
    return None


OWN_GUIDANCE = OwnGuidance("calls", own_scale)
PIPELINE = PipelineSpec(
    pipeline_class="QwenImagePipeline",
    layout=layout,
    guidance_off={"true_cfg_scale": 1.0},
    prompts=prompts,
    settings=lambda pipe: {"max_sequence_length": 512},
    tokenizers={"tokenizer": "max_sequence_length"},
    settings_maximum={"max_sequence_length": 1024},
    conditions=no_conditions,
    text_states=text_states,
    unconditional=lambda pipe, negative, settings: text_states(pipe, [negative], settings),
    unpack=unpack,
    pack=pack,
    to_autoencoder=to_autoencoder,
    from_autoencoder=from_autoencoder,
    moving=True,
    sigmas=lambda steps: np.linspace(1.0, 1 / steps, steps),
)
FAMILY = ModelFamily("qwenimage", "QwenImageTransformer2DModel", describe, (PIPELINE,), OWN_GUIDANCE)
