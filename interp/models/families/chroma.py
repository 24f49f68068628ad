"""Chroma (`ChromaTransformer2DModel`, `ChromaPipeline`), as in diffusers 0.42: FLUX.1's blocks, with gates from a network.

One network, the approximator (`distilled_guidance_layer`), computes all AdaLN values of all blocks from the timestep. Text does
not enter the gates. Each block receives its own values, (batch, chunk, channel): in a double block the image's six, then the
text's six. Double blocks return (text, image). Single blocks take and return one state, text first. The approximator's last two
values enter again in `norm_out`. The transformer receives the timestep divided by 1000. It also receives a mask over text and
image tokens, which hides all padding except its first token.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from interp.models.anatomy import Anatomy, Conditioning, Inputs, Norm, Reentry, Tap, Timestep
from interp.models.families.blocks import (
    ADALN_BOTH,
    ADALN_SINGLE,
    double_block,
    given,
    image_stream,
    numbered,
    single_block,
    text_stream,
)
from interp.models.families.calls import encoder, falling, pack, packed_layout, text_pipeline, unmasked, unpack
from interp.models.families.pipeline import ModelFamily, OwnGuidance
from interp.models.families.schedules import Levels
from interp.models.lazy import torch

DOUBLE = double_block(
    (
        given("temb", ADALN_BOTH),
        Tap("image", "modulated", "attn", "norm1", item=0),
        Tap("text", "modulated", "attn", "norm1_context", item=0),
    ),
    rows=("hidden_states", "encoder_hidden_states", "temb", "attention_mask"),
)
SINGLE = single_block(given("temb", ADALN_SINGLE), rows=("hidden_states", "temb", "attention_mask"))
encode = encoder(encoder_hidden_states=0, attention_mask=2)  # the mask does not cover the image's tokens


def approximated(transformer: Any, inputs: Inputs) -> Inputs:
    """The approximator's output for all blocks, as in the transformer's forward: (batch, chunk, channel)."""
    timestep = inputs["timestep"].to(transformer.dtype) * 1000
    return {"temb": transformer.distilled_guidance_layer(transformer.time_text_embed(timestep))}


def of_block(doubles: int, singles: int, given: Inputs, block: int) -> Inputs:
    """A block's own values. The order: three per single block, the image's six per double block, the text's six."""
    values = given["temb"]
    if block >= doubles:
        first = 3 * (block - doubles)
        return {"temb": values[:, first : first + 3]}
    image = 3 * singles + 6 * block
    text = image + 6 * doubles
    return {"temb": torch.cat((values[:, image : image + 6], values[:, text : text + 6]), dim=1)}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `ChromaTransformer2DModel`: blocks are numbered consecutively, double blocks first."""
    counts = len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)
    return Anatomy(
        family="chroma",
        model_class="ChromaTransformer2DModel",
        streams=(image_stream(transformer.inner_dim), text_stream(transformer.inner_dim)),
        blocks=numbered(transformer, transformer_blocks=DOUBLE, single_transformer_blocks=SINGLE),
        row_inputs=("hidden_states", "encoder_hidden_states", "timestep", "attention_mask"),
        reentries=(Reentry("norm_out", "emb"),),
        timestep=Timestep(scale=1000.0),
        conditioning=Conditioning({"timestep": "timestep"}, approximated, of_block=partial(of_block, *counts)),
        last_norm=Norm("norm_out.norm"),
    )


PIPELINE = text_pipeline(
    "ChromaPipeline",
    packed_layout,
    encode,
    unpack=unpack,
    pack=pack,
    levels=Levels(falling),
    own_tokens=unmasked(encode, "attention_mask"),
)
FAMILY = ModelFamily("chroma", "ChromaTransformer2DModel", describe, (PIPELINE,), OwnGuidance("calls"))
