"""HiDream-I1 (`HiDreamImageTransformer2DModel`, `HiDreamImagePipeline`), as in diffusers 0.42.

Double blocks return (image, text). Single blocks take and return one state, image first. Each block has one projection of
`temb` (timestep and pooled text): twelve chunks in a double block, the image's first, and six shared ones in a single block.
The image's MLP is a mixture of experts. `temb` enters again in `final_layer`. The transformer predicts minus the velocity.

The text stream is what one block passes to the next: T5's tokens, then those of the last selected Llama layer. Behind them,
every block receives the tokens of its own Llama layer, which act as text under the text's gates. The transformer cuts them off
after the block. They are conditioning, not a stream, and no site shows them. In a single block the text tokens are in the
middle, where an edit that holds LayerNorms does not reach, so no norm is listed.

The pipeline generates the same number of pixels for every size. It pads non-square pictures, so only squares are supported.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from interp.base.errors import ModelError
from interp.models.anatomy import Anatomy, Block, Conditioning, Form, Inputs, Lengths, Reentry, Tap, Timestep
from interp.models.families.blocks import (
    ADALN_BOTH,
    IMAGE_FIRST,
    STATES,
    called,
    image_stream,
    mlp_taps,
    numbered,
    single_block,
    text_stream,
)
from interp.models.families.calls import Settings, attended, encoder, patch_layout, text_pipeline
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance
from interp.models.families.schedules import Levels
from interp.models.hook_points import REST
from interp.models.lazy import torch

LLAMA = "encoder_hidden_states_llama3"  # (layer, batch, token, channel)
ROW_INPUTS = ("hidden_states", "encoder_hidden_states", "temb", "hidden_states_masks", "image_rotary_emb")


TextTap = partial(Tap, "text", joint=("text", REST))


DOUBLE = Block(
    path=".block",
    kind="double",
    hidden={"image": 0, "text": 1},
    reads=(
        called("image", "adaLN_modulation", ADALN_BOTH),
        Tap("image", "modulated", "attn", "attn1", "input"),
        TextTap("modulated", "attn", "attn1.to_q_t", "input"),
        Tap("image", "branch", "attn", "attn1", item=0),
        TextTap("branch", "attn", "attn1", item=1),
        Tap("image", "mid", None, "norm3_i", "input"),
        TextTap("mid", None, "norm3_t", "input"),
        *mlp_taps("image", "norm3_i", "ff_i")[1:],
        TextTap("modulated", "mlp", "ff_t", "input"),
        TextTap("branch", "mlp", "ff_t"),
    ),
    row_inputs=ROW_INPUTS,
    state_inputs=STATES,
    attention=("attn1.to_v", "attn1.to_out"),
    followed=True,
)
SINGLE = single_block(
    called("image", "adaLN_modulation"),
    (
        Tap("image", "modulated", "attn", "attn1", "input"),
        Tap("image", "branch", "attn", "attn1"),
        *mlp_taps("image", "norm3_i", "ff_i"),
    ),
    norms=(),
    order=IMAGE_FIRST,
    rows=ROW_INPUTS,
    followed=True,
    path=".block",
)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it."""
    pooled = inputs["pooled_embeds"]
    return {"temb": transformer.t_embedder(inputs["timesteps"], pooled.dtype) + transformer.p_embedder(pooled)}


def lengths(patch: int, given: Inputs) -> Lengths:
    """Tokens of the streams, from the transformer's arguments; Llama's are (layer, batch, token, channel)."""
    height, width = given["hidden_states"].shape[-2:]
    text = given["encoder_hidden_states_t5"].shape[1] + given[LLAMA].shape[2]
    return {"image": (height // patch) * (width // patch), "text": text}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `HiDreamImageTransformer2DModel`: blocks are numbered consecutively, double blocks first."""
    return Anatomy(
        family="hidream",
        model_class="HiDreamImageTransformer2DModel",
        streams=(image_stream(transformer.inner_dim), text_stream(transformer.inner_dim)),
        blocks=numbered(transformer, double_stream_blocks=DOUBLE, single_stream_blocks=SINGLE),
        row_inputs=("hidden_states", "timesteps", "encoder_hidden_states_t5", LLAMA, "pooled_embeds"),
        reentries=(Reentry("final_layer", "temb"),),
        conditioning=Conditioning({"timestep": "timesteps", "text": "pooled_embeds"}, block_conditioning),
        forms={LLAMA: Form(axis=1)},
        timestep=Timestep("timesteps"),
        lengths=partial(lengths, transformer.config.patch_size),
        forks=False,
    )


def encode(pipe: Any, texts: list[str], settings: Settings) -> dict[str, torch.Tensor]:
    """T5's tokens (batch, token, channel), Llama's (batch, layer, token, channel) and the pooled text (batch, channel)."""
    found = encoder(encoder_hidden_states_t5=0, encoder_hidden_states_llama3=2, pooled_embeds=4)(pipe, texts, settings)
    return {**found, LLAMA: found[LLAMA].movedim(1, 0)}


def settings(pipe: Any) -> dict[str, Any]:
    """Text length of each encoder; an error if Llama is missing, as in the published pipelines."""
    if pipe.text_encoder_4 is None or pipe.tokenizer_4 is None:
        raise ModelError(
            "HiDreamImagePipeline: its Llama is missing; load it with text_encoder_4= and tokenizer_4=, then interp.wrap it"
        )
    return {"max_sequence_length": 128}


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture of height x width pixels."""
    most = [tokenizer.model_max_length for tokenizer in (pipe.tokenizer_3, pipe.tokenizer_4)]
    text_tokens = sum(min(settings["max_sequence_length"], length) for length in most)
    return patch_layout(pipe, height, width, text_tokens, prediction=("minus_velocity",))


def own_tokens(pipe: Any, texts: list[str], settings: Settings) -> np.ndarray[Any, Any]:
    """A prompt's own tokens among T5's and Llama's, (text, token)."""
    tokenizers, most = (pipe.tokenizer_3, pipe.tokenizer_4), settings["max_sequence_length"]
    return np.concatenate([attended(one, texts, min(most, one.model_max_length)) for one in tokenizers], axis=1)


PIPELINE = text_pipeline(
    "HiDreamImagePipeline",
    layout,
    encode,
    longest=128,
    takes_size=False,
    settings=settings,
    tokenizers=dict.fromkeys(("tokenizer", "tokenizer_2", "tokenizer_3", "tokenizer_4"), "max_sequence_length"),
    gates=("pooled_embeds",),
    own_tokens=own_tokens,
    levels=Levels(shift=lambda pipe, tokens, steps: 0.5 + (1.15 - 0.5) / (4096 - 256) * (tokens - 256)),
)
FAMILY = ModelFamily(
    "hidream", "HiDreamImageTransformer2DModel", describe, (PIPELINE,), OwnGuidance("uncond first", follows=True)
)
