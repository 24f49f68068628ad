"""Chroma (`ChromaTransformer2DModel`, `ChromaPipeline`), as in diffusers 0.42: FLUX.1's blocks, with gates from a network.

One network, the approximator (`distilled_guidance_layer`), computes all AdaLN values of all blocks from the timestep. Text does
not enter the gates. Each block receives its own values, (batch, chunk, channel): in a double block the image's six, then the
text's six. Double blocks return (text, image). Single blocks take and return one state, text first. The approximator's last two
values enter again in `norm_out`. The transformer receives the timestep divided by 1000. It also receives a mask over text and
image tokens, which hides all padding except its first token.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Modulation, Norm, Reentry, Tap, given_chunks
from interp.models.families.described import ModelFamily
from interp.models.families.flux import ADALN_ZERO_SINGLE, HIDDEN, JOINED, STATES, layout, pack, unpack
from interp.models.families.pipeline import OwnGuidance, PipelineSpec, no_conditions
from interp.models.families.sd3 import ADALN_ZERO, TWO_STREAM_NORMS, mlp_taps

if TYPE_CHECKING:
    from torch import Tensor

BOTH = (*ADALN_ZERO, *(f"text/{chunk}" for chunk in ADALN_ZERO))


def double_block(path: str) -> Block:
    """A double block: two streams with joint attention."""
    return Block(
        path=path,
        kind="double",
        hidden=HIDDEN,
        reads=(
            Modulation("image", None, BOTH, partial(given_chunks, "temb"), argument="temb"),
            Tap("image", "modulated", "attn", "norm1", item=0),
            Tap("text", "modulated", "attn", "norm1_context", item=0),
            Tap("image", "branch", "attn", "attn", item=0),
            Tap("text", "branch", "attn", "attn", item=1),
            *mlp_taps("image", "norm2", "ff"),
            *mlp_taps("text", "norm2_context", "ff_context"),
        ),
        row_inputs=("hidden_states", "encoder_hidden_states", "temb", "attention_mask"),
        state_inputs=STATES,
        norms=TWO_STREAM_NORMS,
        attention=("attn.to_v", "attn.to_out.0"),
    )


def single_block(path: str) -> Block:
    """A single block: both streams joined, attention and MLP in parallel with one gate."""
    compute = partial(given_chunks, "temb")
    return Block(
        path=path,
        kind="single",
        hidden=dict.fromkeys(JOINED),
        reads=(
            Modulation("image", None, ADALN_ZERO_SINGLE, compute, shared_with=("text",), argument="temb"),
            *(Tap(stream, "modulated", "attn", "norm", item=0, joint=JOINED) for stream in STATES),
            *(Tap(stream, "branch", "attn", "proj_out", joint=JOINED) for stream in STATES),
        ),
        row_inputs=("hidden_states", "temb", "attention_mask"),
        state_inputs=dict.fromkeys(JOINED, "hidden_states"),
        norms=(Norm("norm.norm", JOINED),),
        joint=JOINED,
    )


def approximated(transformer: Any, inputs: Inputs) -> Inputs:
    """The approximator's output for all blocks, as in the transformer's forward: (batch, chunk, channel)."""
    timestep = inputs["timestep"].to(transformer.dtype) * 1000
    return {"temb": transformer.distilled_guidance_layer(transformer.time_text_embed(timestep))}


def of_block(doubles: int, singles: int, given: Inputs, block: int) -> Inputs:
    """A block's own values. The order: three per single block, the image's six per double block, the text's six."""
    import torch

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
    doubles = [double_block(f"transformer_blocks.{index}") for index in range(counts[0])]
    singles = [single_block(f"single_transformer_blocks.{index}") for index in range(counts[1])]
    return Anatomy(
        family="chroma",
        model_class="ChromaTransformer2DModel",
        channels=transformer.inner_dim,
        blocks=(*doubles, *singles),
        row_inputs=("hidden_states", "encoder_hidden_states", "timestep", "attention_mask"),
        reentries=(Reentry("norm_out", "emb"),),
        timestep_scale=1000.0,
        conditioning=Conditioning({"timestep": "timestep"}, approximated, of_block=partial(of_block, *counts)),
        last_norm=Norm("norm_out.norm"),
    )


def text_states(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The text tokens, (batch, token, channel), and their mask, which does not cover the image's."""
    length = settings["max_sequence_length"]
    states, _, mask, *_ = pipe.encode_prompt(texts, do_classifier_free_guidance=False, max_sequence_length=length)
    return {"encoder_hidden_states": states, "attention_mask": mask}


OWN_GUIDANCE = OwnGuidance("calls", lambda given: given["guidance_scale"] if given["guidance_scale"] > 1 else None)
PIPELINE = PipelineSpec(
    pipeline_class="ChromaPipeline",
    layout=layout,
    guidance_off={"guidance_scale": 1.0},
    settings=lambda pipe: {"max_sequence_length": 512},
    tokenizers={"tokenizer": "max_sequence_length"},
    settings_maximum={"max_sequence_length": 512},
    conditions=no_conditions,
    text_states=text_states,
    unconditional=lambda pipe, negative, settings: text_states(pipe, [negative], settings),
    unpack=unpack,
    pack=pack,
    sigmas=lambda steps: np.linspace(1.0, 1 / steps, steps),
)
FAMILY = ModelFamily("chroma", "ChromaTransformer2DModel", describe, (PIPELINE,), OWN_GUIDANCE)
