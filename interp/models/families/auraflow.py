"""AuraFlow (`AuraFlowTransformer2DModel`, `AuraFlowPipeline`), as in diffusers 0.42.

Joint blocks return (text, image). Single blocks take and return one state, text first. Register tokens come before the text.
Each block projects the timestep alone. Text does not enter the gates. Only the MLP writes into the residual stream:

    z[k+1] = z[k] + alpha.mlp * MLP((1 + scale) LayerNorm(z[k] + alpha.attn * attention) + shift)

There is no branch of attention and no state between the two: alpha.attn acts inside. `temb` enters again in `norm_out`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from interp.models.anatomy import Anatomy, Conditioning, Reentry, Tap, Timestep
from interp.models.families.blocks import (
    double_block,
    embed_timestep,
    image_stream,
    numbered,
    projected,
    single_block,
    text_stream,
)
from interp.models.families.calls import Settings, config_size, encoder, own_tokens, patch_layout, text_pipeline
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance
from interp.models.lazy import torch

JOINT = double_block(
    attention=(), mlps=(Tap("image", "branch", "mlp", "ff"), Tap("text", "branch", "mlp", "ff_context")), kind="joint"
)
SINGLE = single_block(
    projected("image", "norm1"),
    (Tap("image", "modulated", "attn", "norm1", item=0), Tap("image", "branch", "mlp", "ff")),
    rows=("hidden_states", "temb"),
    norms=("norm1.norm", "norm2"),
)
encode = encoder(encoder_hidden_states=0)


def position(transformer: Any, grid: tuple[int, int]) -> torch.Tensor:
    """The position embedding of a picture of grid (y, x) tokens, (token, channel): the middle of the learned table."""
    embed = transformer.pos_embed
    chosen = embed.pe_selection_index_based_on_dim(*(side * embed.patch_size for side in grid))
    table: torch.Tensor = embed.pos_embed[0, chosen]
    return table


def describe(transformer: Any) -> Anatomy:
    """The anatomy of an `AuraFlowTransformer2DModel`: blocks are numbered consecutively, joint blocks first."""
    registers = transformer.register_tokens.shape[1]
    return Anatomy(
        family="auraflow",
        model_class="AuraFlowTransformer2DModel",
        streams=(image_stream(transformer.inner_dim), text_stream(transformer.inner_dim)),
        blocks=numbered(transformer, joint_transformer_blocks=JOINT, single_transformer_blocks=SINGLE),
        row_inputs=("hidden_states", "encoder_hidden_states", "timestep"),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        timestep=Timestep(scale=1000.0),
        position=position,
        conditioning=Conditioning({"timestep": "timestep"}, partial(embed_timestep, "time_step_embed", "time_step_proj")),
        lengths=lambda given: {"text": registers + given["encoder_hidden_states"].shape[1]},
    )


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture of height x width pixels."""
    registers = pipe.transformer.register_tokens.shape[1]
    return patch_layout(pipe, height, width, registers + settings["max_sequence_length"])


PIPELINE = text_pipeline(
    "AuraFlowPipeline",
    layout,
    encode,
    256,
    default_size=config_size,
    own_tokens=own_tokens(("tokenizer", "max_sequence_length")),
)
FAMILY = ModelFamily("auraflow", "AuraFlowTransformer2DModel", describe, (PIPELINE,), OwnGuidance("uncond first"))
