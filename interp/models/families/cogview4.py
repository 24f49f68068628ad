"""CogView4 (`CogView4Transformer2DModel`, `CogView4Pipeline`), as in diffusers 0.42.

Joint blocks return (image, text). One projection (`norm1.linear`) holds the chunks of both streams, which alternate. `temb`,
after its SiLU, comes from the timestep and the picture's size. Text does not enter the gates. A block calls one MLP twice, for
the image and then for the text. Attention's values are shared by both streams, so attention cannot be perturbed. `temb` enters
again in `norm_out`. The transformer reads the batch size before the blocks and uses it after them.

The pipeline puts padding before the text, up to the longest prompt of the batch and to a multiple of 16 tokens. No mask
hides it. Here every prompt is padded to `max_sequence_length`, so a row does not depend on its batch. At the first multiple of
16 that holds the prompt, a picture is the pipeline's own.

The pipeline passes its scheduler both noise levels and timesteps. The scheduler shifts only the levels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from interp.base.errors import InputError
from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Norm, Reentry, Tap
from interp.models.families.blocks import ROWS, STATES, called, image_stream, numbered, text_stream
from interp.models.families.calls import Settings, config_size, patch_layout, text_pipeline
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance
from interp.models.families.schedules import Levels
from interp.models.lazy import torch

CHUNKS = tuple(
    f"{stream}{kind}.{gate}"
    for kind, gate in (
        ("shift", "attn"),
        ("scale", "attn"),
        ("alpha", "attn"),
        ("shift", "mlp"),
        ("scale", "mlp"),
        ("alpha", "mlp"),
    )
    for stream in ("", "text/")
)
SIZES = ("original_size", "target_size", "crop_coords")
EVERY = 16  # a prompt has a multiple of so many tokens

JOINT = Block(
    path="",
    kind="joint",
    hidden={"image": 0, "text": 1},
    reads=(
        called("image", "norm1.linear", CHUNKS),
        Tap("image", "modulated", "attn", "norm1", item=0),
        Tap("text", "modulated", "attn", "norm1", item=5),
        Tap("image", "branch", "attn", "attn1", item=0),
        Tap("text", "branch", "attn", "attn1", item=1),
        Tap("image", "mid", None, "norm2", "input"),
        Tap("text", "mid", None, "norm2_context", "input"),
        Tap("image", "modulated", "mlp", "ff", "input", turn=0),
        Tap("image", "branch", "mlp", "ff", turn=0),
        Tap("text", "modulated", "mlp", "ff", "input", turn=1),
        Tap("text", "branch", "mlp", "ff", turn=1),
    ),
    row_inputs=ROWS,
    state_inputs=STATES,
    norms=(
        Norm("norm1.norm"),
        Norm("norm1.norm_context", ("text",)),
        Norm("norm2"),
        Norm("norm2_context", ("text",)),
    ),
)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it."""
    sizes = (inputs[name] for name in SIZES)
    embedded = transformer.time_condition_embed(inputs["timestep"], *sizes, transformer.dtype)
    return {"temb": torch.nn.functional.silu(embedded)}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `CogView4Transformer2DModel`."""
    config = transformer.config
    width = config.num_attention_heads * config.attention_head_dim
    return Anatomy(
        family="cogview4",
        model_class="CogView4Transformer2DModel",
        streams=(image_stream(width), text_stream(width)),
        blocks=numbered(transformer, transformer_blocks=JOINT),
        row_inputs=("hidden_states", "encoder_hidden_states", "timestep", *SIZES),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning, further=SIZES),
        last_norm=Norm("norm_out.norm"),
        forks=False,
    )


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture of height x width pixels."""
    length = settings["max_sequence_length"]
    if length % EVERY:
        raise InputError(
            f"max_sequence_length must be a multiple of {EVERY}; got {length} (try {length // EVERY * EVERY + EVERY})"
        )
    return patch_layout(pipe, height, width, length, least=16)


def numbers(pipe: Any, texts: list[str], length: int) -> list[list[int]]:
    """The tokens of each text, cut to a length, without padding."""
    found: list[list[int]] = pipe.tokenizer(texts, truncation=True, max_length=length).input_ids
    return found


def encode(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """Text tokens, (batch, token, channel), with padding first."""
    length = settings["max_sequence_length"]
    padded = [[pipe.tokenizer.pad_token_id] * (length - len(own)) + own for own in numbers(pipe, texts, length)]
    with torch.no_grad():
        given = torch.tensor(padded, device=pipe._execution_device)
        states = pipe.text_encoder(given, output_hidden_states=True).hidden_states[-2]
    return {"encoder_hidden_states": states}


def own_tokens(pipe: Any, texts: list[str], settings: Settings) -> np.ndarray[Any, Any]:
    """A prompt's own tokens are the last ones, (text, token)."""
    length = settings["max_sequence_length"]
    return np.array([[place >= length - len(own) for place in range(length)] for own in numbers(pipe, texts, length)])


def conditions(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """No text; the default size, not cropped."""
    size = torch.tensor([config_size(pipe)] * len(texts), dtype=pipe.transformer.dtype, device=pipe._execution_device)
    return dict(zip(SIZES, (size, size, size * 0), strict=True))


def timesteps(steps: int) -> np.ndarray[Any, Any]:
    """Whole timesteps from 1000 to 1, evenly spaced up to rounding."""
    return np.linspace(1000, 1.0, steps).astype(np.int64).astype(np.float32)


def shift(pipe: Any, tokens: int, steps: int) -> float:
    """The shift of the noise levels, which grows with the picture's side."""
    config = pipe.scheduler.config
    return float((tokens / config.base_image_seq_len) ** 0.5 * config.max_shift + config.base_shift)


PIPELINE = text_pipeline(
    "CogView4Pipeline",
    layout,
    encode,
    64,
    longest=1024,
    default_size=config_size,
    prompts=lambda pipe, texts, settings: {"prompt_embeds": encode(pipe, texts, settings)["encoder_hidden_states"]},
    conditions=conditions,
    own_tokens=own_tokens,
    levels=Levels(lambda steps: timesteps(steps) / 1000, timesteps=timesteps, shift=shift),
)
FAMILY = ModelFamily("cogview4", "CogView4Transformer2DModel", describe, (PIPELINE,), OwnGuidance("calls", follows=True))
