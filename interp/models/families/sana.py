"""SANA, SANA 1.5, SANA-Sprint (`SanaTransformer2DModel`, `SanaPipeline`, `SanaSprintPipeline`), as in diffusers 0.42.

There is one stream; text enters through cross-attention.

As in PixArt, AdaLN is projected once from the timestep and every block adds its own table. Text does not enter the gates.
Cross-attention (`attn2`) has no gate. Self-attention is linear. The MLP is a convolution over the picture. The embedded
timestep enters again in `norm_out`.

SANA-Sprint is distilled, for one to four steps. Its gates also depend on an embedded guidance, the only guidance it has. Its
scheduler counts angles t, with latents sigma_data (cos(t) x0 + sin(t) e), and adds new noise at every step. Its pipeline
converts them to a rectified flow at the level sin(t) / (cos(t) + sin(t)), and the velocity back.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from interp.models.anatomy import Anatomy, Conditioning, Inputs, Norm, Reentry, Timestep
from interp.models.families.blocks import cross_block, image_stream, mlp_taps, numbered, tabled
from interp.models.families.calls import Settings, config_size, encoder, patch_layout, text_pipeline
from interp.models.families.pipeline import ModelFamily, OwnGuidance, guidance_scale, scaled_in, scaled_out
from interp.models.families.pixart import CROSS_INPUTS
from interp.models.families.schedules import FLOW_TIMESTEPS, Levels
from interp.models.lazy import torch

CROSS = cross_block(
    tabled("timestep"), *mlp_taps("image", "norm2", "ff", spatial=True), rows=CROSS_INPUTS, norms=("norm1", "norm2")
)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN argument, as the transformer's forward computes it."""
    timestep = inputs["timestep"]
    rows = {"guidance": inputs["guidance"]} if "guidance" in inputs else {"batch_size": len(timestep)}
    given, _ = transformer.time_embed(timestep, **rows, hidden_dtype=transformer.dtype)
    return {"timestep": given}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `SanaTransformer2DModel`."""
    config = transformer.config
    guided = ("guidance",) if config.guidance_embeds else ()
    return Anatomy(
        family="sana",
        model_class="SanaTransformer2DModel",
        streams=(image_stream(config.num_attention_heads * config.attention_head_dim),),
        blocks=numbered(transformer, transformer_blocks=CROSS),
        row_inputs=(*CROSS_INPUTS, *guided),
        reentries=(Reentry("norm_out", "temb"),),
        timestep=Timestep(scale=FLOW_TIMESTEPS if guided else 1.0 / config.timestep_scale),
        conditioning=Conditioning(
            {"timestep": "timestep", **{name: name for name in guided}},
            block_conditioning,
            guidance_scale=config.guidance_embeds_scale if guided else 1.0,
        ),
        last_norm=Norm("norm_out.norm"),
        forks=False,
    )


def instruction(pipe: Any) -> dict[str, Any]:
    """The instruction that the pipeline puts before a prompt, by default."""
    name = "complex_human_instruction"
    return {name: inspect.signature(type(pipe).__call__).parameters[name].default}


def guidance(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """The embedded guidance, as the transformer takes it."""
    given = [settings["embedded_guidance"] * pipe.transformer.config.guidance_embeds_scale] * len(texts)
    return {"guidance": torch.tensor(given, dtype=pipe.transformer.dtype, device=pipe._execution_device)}


def levels(scheduler: Any) -> np.ndarray[Any, Any]:
    """The noise levels of the flow at the scheduler's angles; the last angle, 0, is no step."""
    angles = scheduler.timesteps[:-1]
    sine, cosine = angles.sin(), angles.cos()
    return np.asarray((sine / (cosine + sine)).cpu(), np.float64)


def sigma_data(pipe: Any) -> float:
    """The size of clean latents in the scheduler, in the flow's."""
    return float(pipe.scheduler.config.sigma_data)


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The scale of classifier-free guidance; `None` where the guidance is embedded."""
    return None if given["self"].transformer.config.guidance_embeds else guidance_scale(given)


encode = encoder(instruction, encoder_hidden_states=0, encoder_attention_mask=1)
encode_plain = encoder(encoder_hidden_states=0, encoder_attention_mask=1)  # without the instruction, as the negative prompt
SHARED: dict[str, Any] = {
    "layout": lambda pipe, height, width, settings: patch_layout(pipe, height, width, least=32),
    "encode": encode,
    "length": 300,
    "longest": 300,
    "set_by_calls": ("padding_side",),
    "default_size": config_size,
    "unconditional": lambda pipe, negative, settings: encode_plain(pipe, [negative], settings),
}
PIPELINE = text_pipeline("SanaPipeline", guidance_off={"guidance_scale": 1.0, "use_resolution_binning": False}, **SHARED)
SPRINT = text_pipeline(
    "SanaSprintPipeline",
    **SHARED,
    guidance_off={"use_resolution_binning": False},
    settings=lambda pipe: {"max_sequence_length": 300, "embedded_guidance": 4.5},
    argument_of={"embedded_guidance": "guidance_scale"},
    conditions=guidance,
    levels=Levels(
        arguments=lambda steps: {"intermediate_timesteps": 1.3 if steps == 2 else None}, flow=levels, flow_size=sigma_data
    ),
    to_autoencoder=lambda pipe, latents: scaled_out(pipe, latents / sigma_data(pipe)),
    from_autoencoder=lambda pipe, latents: scaled_in(pipe, latents) * sigma_data(pipe),
)
FAMILY = ModelFamily("sana", "SanaTransformer2DModel", describe, (PIPELINE, SPRINT), OwnGuidance("uncond first", own_scale))
