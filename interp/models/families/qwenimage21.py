"""Qwen-Image 2.1 (`QwenImage21Transformer2DModel`, `QwenImage21Pipeline`), as in diffusers 0.42. Text to image alone.

Blocks take and return one state: a row's text, then its image. One projection of the timestep, outside of the blocks, gives all
of them the same scales and gates; there are no shifts, and a gate is a tanh. Its last row is that of timestep 0 and serves the
text of every row: edits of gates leave it. `temb` enters again in `norm_out`, with that row. The transformer receives the
timestep divided by 1000, and returns the text's tokens before the image's.

Text attends only to what is before it, so the pipeline can keep its keys after the first step; here it computes them at every
step. The place of an image in its position embedding depends on the longest prompt of its call. So calls have one row, text has
a prompt's own length, and is no stream.

Pictures have transparency, which is left out. The pipeline's own guidance needs a negative prompt.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from interp.base.errors import ModelError
from interp.models.anatomy import Anatomy, Conditioning, Form, Inputs, Modulation, Norm, Reentry, Tap, Timestep
from interp.models.families.blocks import image_stream, mlp_taps, numbered
from interp.models.families.calls import Settings, denormalise, falling, normalise, text_pipeline
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance
from interp.models.families.schedules import Levels
from interp.models.families.uncounted import IMAGE_LAST, LastBlock
from interp.models.lazy import torch

CHUNKS = ("scale.attn", "alpha.attn", "scale.mlp", "alpha.mlp")
SLOT = 4  # tokens of an image for one place in the mask of the text encoder's tokens


@dataclasses.dataclass(frozen=True)
class TextLast(Modulation):
    """AdaLN values that a block receives as an argument whose last row is the text's."""

    def write(self, block: Any, inputs: Inputs, before: torch.Tensor, after: torch.Tensor) -> dict[str, Any]:
        """The block's inputs with rows that make it use `after`."""
        return {**inputs, "modulation": torch.cat([after, inputs["modulation"][-1:]])}


BLOCK = LastBlock(
    path="",
    kind="single",
    hidden={"image": None},
    reads=(
        TextLast("image", None, CHUNKS, lambda block, given: given["modulation"][:-1], argument="modulation", tanh=True),
        Tap("image", "modulated", "attn", "attn", "input", joint=IMAGE_LAST, argument="hidden_states"),
        Tap("image", "branch", "attn", "attn", joint=IMAGE_LAST),
        *(dataclasses.replace(tap, joint=IMAGE_LAST) for tap in mlp_taps("image", "img_norm2", "img_mlp")),
    ),
    row_inputs=("hidden_states", "modulation"),
    state_inputs={"image": "hidden_states"},
    norms=(Norm("img_norm1", IMAGE_LAST), Norm("img_norm2", IMAGE_LAST)),
    joint=("image",),
)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN values as the transformer's forward computes them, those of timestep 0 last."""
    timestep, of_dtype = inputs["timestep"].to(transformer.dtype), torch.empty(0, dtype=transformer.dtype)
    both = torch.cat([timestep, timestep.new_zeros(1)])
    return {"modulation": transformer.modulation(transformer.time_text_embed(both, of_dtype))}


def after_text(given: Inputs) -> Inputs:
    """Where the image's tokens are: behind the text's."""
    rows, tokens, _ = given["encoder_hidden_states"].shape
    image = math.prod(given["img_shapes"][0][-1]) // SLOT
    places = torch.arange(tokens + image, device=given["img_mask"].device) >= tokens
    return {"img_mask": places.expand(rows, -1)}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `QwenImage21Transformer2DModel`."""
    if not transformer.config.causal_condition:
        raise ModelError("QwenImage21Transformer2DModel: weights without causal_condition cannot be traced")
    return Anatomy(
        family="qwenimage21",
        model_class="QwenImage21Transformer2DModel",
        streams=(image_stream(transformer.inner_dim),),
        blocks=numbered(transformer, transformer_blocks=BLOCK),
        row_inputs=("hidden_states", "encoder_hidden_states", "timestep", "img_shapes", "img_mask"),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        forms={"hidden_states": Form(led=True), "encoder_hidden_states": Form(ragged=True, masked=False)},
        after_text=after_text,
        timestep=Timestep(scale=1000.0),
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning),
        last_norm=Norm("norm_out.norm", IMAGE_LAST),
        lengths=lambda given: {"image": given["hidden_states"].shape[1]},
        forks=False,
    )


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture of height x width pixels: a token is a latent."""
    if pipe.config.sample_sigmas is not None:
        raise ModelError("QwenImage21Pipeline: a pipeline with its own sample_sigmas cannot be traced")
    rows, columns = height // pipe.vae_scale_factor, width // pipe.vae_scale_factor
    return Layout(
        sizes={"image": (rows, columns)},
        latents={"latent_token": rows * columns, "latent_channel": pipe.transformer.config.in_channels},
        pixel_multiple=2 * pipe.vae_scale_factor,
    )


def encode(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """The text tokens of prompts, (batch, token, channel), as long as the longest."""
    return {"encoder_hidden_states": pipe.encode_prompt(texts)[0]}


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The pipeline's scale; `None` where it is 1 or there is no negative prompt."""
    negative = given["negative_prompt"] is not None or given["negative_prompt_embeds"] is not None
    return given["true_cfg_scale"] if negative and given["true_cfg_scale"] > 1 else None


PIPELINE = text_pipeline(
    "QwenImage21Pipeline",
    layout,
    encode,
    guidance_off={"true_cfg_scale": 1.0, "use_kv_cache": False},
    examples=("a red circle", "a blue square"),
    default_size=lambda pipe: (1024, 1024),
    settings=lambda pipe: {},
    settings_maximum={},
    tokenizers={},
    unpack=lambda pipe, latents, height, width: pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor),
    pack=lambda pipe, latents: latents.flatten(2).transpose(1, 2),
    to_autoencoder=denormalise,
    from_autoencoder=normalise,
    moving=True,
    levels=Levels(falling),
)
FAMILY = ModelFamily("qwenimage21", "QwenImage21Transformer2DModel", describe, (PIPELINE,), OwnGuidance("calls", own_scale))
