"""Lumina-Image 2.0 (`Lumina2Transformer2DModel`, `Lumina2Pipeline`), as in diffusers 0.42.

Refiner blocks take the image alone. Joint blocks take and return one state: a row's text tokens, its image tokens, and padding
up to the longest row. The number of text tokens depends on the row, and so does the place where its image begins. A block's
mask counts a row's tokens. Text is conditioning here, not a stream: it has no fixed length, and its own refiner has no gates.
The gates of a joint block act on it too.

Norms are RMS norms. There are no shifts. Each branch is normalised again before its gate, which is a tanh; a branch here is the
output of that norm. The gates depend on the timestep alone. `temb` enters again in `norm_out`. The transformer receives 1 minus
the timestep over 1000 and predicts minus the velocity. Heads share keys and values, so blocks list no attention for guidance.

The pipeline puts a system prompt before a prompt, not before a negative one. It rescales its own guidance by default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from interp.base.errors import InputError
from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Lengths, Reentry, Tap, Timestep
from interp.models.families.blocks import image_stream, numbered, projected
from interp.models.families.calls import Settings, encoder, falling, patch_layout, text_pipeline
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance, guidance_scale
from interp.models.families.schedules import Levels, dynamic_shift
from interp.models.families.uncounted import TEXT_IN_FRONT, CountedBlock
from interp.models.lazy import torch

CHUNKS = ("scale.attn", "alpha.attn", "scale.mlp", "alpha.mlp")
LATENT_CHANNELS = 16
TAPS = (
    Tap("image", "modulated", "attn", "norm1", item=0),
    Tap("image", "branch", "attn", "norm2"),
    Tap("image", "mid", None, "ffn_norm1", "input"),
    Tap("image", "modulated", "mlp", "feed_forward", "input"),
    Tap("image", "branch", "mlp", "ffn_norm2"),
)
REFINER = Block(
    path="",
    kind="refiner",
    hidden={"image": None},
    reads=(dataclasses.replace(projected("image", "norm1", CHUNKS), tanh=True), *TAPS),
    row_inputs=("hidden_states", "image_rotary_emb", "temb"),
    state_inputs={"image": "hidden_states"},
)
JOINT = CountedBlock(
    path="",
    kind="joint",
    hidden={"image": None},
    reads=(REFINER.reads[0], *(dataclasses.replace(tap, joint=TEXT_IN_FRONT) for tap in TAPS)),
    row_inputs=("hidden_states", "attention_mask", "image_rotary_emb", "temb"),
    state_inputs={"image": "hidden_states"},
    joint=("image",),
    followed=True,
)
encode = encoder(encoder_hidden_states=0, encoder_attention_mask=1)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it; `hidden_states` gives only the dtype."""
    embed, of_dtype = transformer.time_caption_embed, torch.empty(0, dtype=transformer.dtype)
    return {"temb": embed.timestep_embedder(embed.time_proj(inputs["timestep"]).type_as(of_dtype)), "hidden_states": of_dtype}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `Lumina2Transformer2DModel`: blocks are numbered consecutively, the image's refiner first."""
    patch = transformer.config.patch_size

    def lengths(given: Inputs) -> Lengths:
        height, width = given["hidden_states"].shape[-2:]
        return {"image": (height // patch) * (width // patch), "text": 0}

    return Anatomy(
        family="lumina2",
        model_class="Lumina2Transformer2DModel",
        streams=(image_stream(transformer.config.hidden_size),),
        blocks=numbered(transformer, noise_refiner=REFINER, layers=JOINT),
        row_inputs=("hidden_states", "timestep", "encoder_hidden_states", "encoder_attention_mask"),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        timestep=Timestep(scale=1000.0, rises=True),
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning),
        lengths=lengths,
        forks=False,
    )


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture of height x width pixels."""
    return patch_layout(pipe, height, width, prediction=("minus_velocity",))


def unconditional(pipe: Any, negative: str, settings: Settings) -> dict[str, Any]:
    """Text tokens and mask of a negative prompt, which gets no system prompt."""
    *_, states, mask = pipe.encode_prompt(["x"], True, [negative], max_sequence_length=settings["max_sequence_length"])
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The pipeline's scale, or an error where it rescales its guided prediction or leaves steps out."""
    scale = guidance_scale(given)
    if scale is not None and (given["cfg_normalization"] or given["cfg_trunc_ratio"] < 1):
        raise InputError(
            "guided: Lumina2Pipeline rescales its own guidance, or stops it, so no guidance can be added to it; call it with "
            "cfg_normalization=False and cfg_trunc_ratio=1.0, or use interp.generate(guidance=...)"
        )
    return scale


def shift(pipe: Any, tokens: int, steps: int) -> float:
    """The shift of the noise levels: the pipeline counts the latents' channels as tokens."""
    return dynamic_shift(pipe, LATENT_CHANNELS, steps)


PIPELINE = text_pipeline(
    "Lumina2Pipeline",
    layout,
    encode,
    256,
    longest=256,
    unconditional=unconditional,
    levels=Levels(falling, shift=shift),
)
FAMILY = ModelFamily("lumina2", "Lumina2Transformer2DModel", describe, (PIPELINE,), OwnGuidance("calls", own_scale))
