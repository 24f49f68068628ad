"""Bria 3.2 (`BriaTransformer2DModel`, `BriaPipeline`), as in diffusers 0.42: FLUX.1's blocks.

Double blocks come before single blocks. Both return (text, image), and their AdaLN projections are FLUX.1's. The gates depend
on the timestep alone, which the transformer receives as the scheduler gives it. `temb` enters again in `norm_out`.

Each prompt is encoded by itself and padded with zeros, without a mask in the transformer. No prompt is zeros throughout; only a
negative prompt with words is encoded. The pipeline's `vae_scale_factor` is the width of a token, not of a latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.base.errors import InputError, ModelError
from interp.models.families.calls import Settings, encoder, falling, own_tokens, pack, text_pipeline, unpack
from interp.models.families.flux import gated_by_time
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance, guidance_scale
from interp.models.families.schedules import Levels
from interp.models.lazy import torch

describe = gated_by_time("bria", "BriaTransformer2DModel", "time_embed.time_proj", "time_embed.timestep_embedder")
encode = encoder(encoder_hidden_states=0)


def settings(pipe: Any) -> dict[str, Any]:
    """Text length; an error for a scheduler to which the pipeline passes other noise levels."""
    if not pipe.scheduler.config.get("use_dynamic_shifting", False):
        raise ModelError(
            f"BriaPipeline: its scheduler, a {type(pipe.scheduler).__name__} without use_dynamic_shifting, cannot be traced; "
            "give it a FlowMatchEulerDiscreteScheduler with use_dynamic_shifting=True"
        )
    return {"max_sequence_length": 128}


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture whose latents are packed, two by two, into tokens."""
    multiple = pipe.vae_scale_factor
    rows, columns = height // multiple, width // multiple
    return Layout(
        sizes={"image": (rows, columns), "text": (settings["max_sequence_length"],)},
        latents={"latent_token": rows * columns, "latent_channel": pipe.transformer.config.in_channels},
        pixel_multiple=multiple,
    )


def unconditional(pipe: Any, negative: str, settings: Settings) -> dict[str, Any]:
    """Zeros for no prompt, or the encoded negative prompt: (1, token, channel)."""
    states = encode(pipe, [negative], settings)["encoder_hidden_states"]
    return {"encoder_hidden_states": states if negative else torch.zeros_like(states)}


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The pipeline's scale, or an error where it rescales its guided prediction."""
    scale = guidance_scale(given)
    if scale is not None and given["normalize"]:
        raise InputError(
            "guided: with normalize=True BriaPipeline rescales its own guidance, so no guidance can be added to it; leave it "
            "at False, or use interp.generate(guidance=...)"
        )
    return scale


PIPELINE = text_pipeline(
    "BriaPipeline",
    layout,
    encode,
    settings=settings,
    unconditional=unconditional,
    unpack=unpack,
    pack=pack,
    levels=Levels(falling),
    own_tokens=own_tokens(("tokenizer", "max_sequence_length")),
)
FAMILY = ModelFamily(
    "bria", "BriaTransformer2DModel", describe, (PIPELINE,), OwnGuidance("uncond first", own_scale, follows=True)
)
