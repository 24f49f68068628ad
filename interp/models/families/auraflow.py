"""AuraFlow (`AuraFlowTransformer2DModel`, `AuraFlowPipeline`), as in diffusers 0.42.

Joint blocks return (text, image). Single blocks take and return one state, text first. Register tokens come before the text.
Each block projects the timestep alone. Text does not enter the gates. Only the MLP writes into the residual stream:

    z[k+1] = z[k] + alpha.mlp * MLP((1 + scale) LayerNorm(z[k] + alpha.attn * attention) + shift)

There is no branch of attention and no state between the two: alpha.attn acts inside. `temb` enters again in `norm_out`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Modulation, Norm, Reentry, Tap
from interp.models.families.described import ModelFamily
from interp.models.families.flux import HIDDEN, JOINED, STATES
from interp.models.families.pipeline import Layout, OwnGuidance, PipelineSpec, no_conditions
from interp.models.families.pixart import default_size
from interp.models.families.sd3 import ADALN_ZERO, BLOCK_ROW_INPUTS, TWO_STREAM_NORMS, project

if TYPE_CHECKING:
    from torch import Tensor


def joint_block(path: str) -> Block:
    """A joint block: two streams with joint attention."""
    return Block(
        path=path,
        kind="joint",
        hidden=HIDDEN,
        reads=(
            Modulation("image", "norm1.linear", ADALN_ZERO, partial(project, "norm1")),
            Tap("image", "modulated", "attn", "norm1", item=0),
            Modulation("text", "norm1_context.linear", ADALN_ZERO, partial(project, "norm1_context")),
            Tap("text", "modulated", "attn", "norm1_context", item=0),
            Tap("image", "branch", "mlp", "ff"),
            Tap("text", "branch", "mlp", "ff_context"),
        ),
        row_inputs=BLOCK_ROW_INPUTS,
        state_inputs=STATES,
        norms=TWO_STREAM_NORMS,
        attention=("attn.to_v", "attn.to_out.0"),
    )


def single_block(path: str) -> Block:
    """A single block: both streams joined, with the same gates."""
    return Block(
        path=path,
        kind="single",
        hidden=dict.fromkeys(JOINED),
        reads=(
            Modulation("image", "norm1.linear", ADALN_ZERO, partial(project, "norm1"), shared_with=("text",)),
            *(Tap(stream, "modulated", "attn", "norm1", item=0, joint=JOINED) for stream in STATES),
            *(Tap(stream, "branch", "mlp", "ff", joint=JOINED) for stream in STATES),
        ),
        row_inputs=("hidden_states", "temb"),
        state_inputs=dict.fromkeys(JOINED, "hidden_states"),
        norms=(Norm("norm1.norm", JOINED), Norm("norm2", JOINED)),
        joint=JOINED,
    )


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it; `hidden_states` gives only the dtype."""
    import torch

    embedded = transformer.time_step_embed(inputs["timestep"]).to(transformer.dtype)
    return {"temb": transformer.time_step_proj(embedded), "hidden_states": torch.empty(0, dtype=transformer.dtype)}


def position(transformer: Any, grid: tuple[int, int]) -> Tensor:
    """The position embedding of a picture of grid (y, x) tokens, (token, channel): the middle of the learned table."""
    embed = transformer.pos_embed
    chosen = embed.pe_selection_index_based_on_dim(*(side * embed.patch_size for side in grid))
    table: Tensor = embed.pos_embed[0, chosen]
    return table


def describe(transformer: Any) -> Anatomy:
    """The anatomy of an `AuraFlowTransformer2DModel`: blocks are numbered consecutively, joint blocks first."""
    joints = [joint_block(f"joint_transformer_blocks.{index}") for index in range(len(transformer.joint_transformer_blocks))]
    singles = [
        single_block(f"single_transformer_blocks.{index}") for index in range(len(transformer.single_transformer_blocks))
    ]
    registers = transformer.register_tokens.shape[1]
    return Anatomy(
        family="auraflow",
        model_class="AuraFlowTransformer2DModel",
        channels=transformer.inner_dim,
        blocks=(*joints, *singles),
        row_inputs=("hidden_states", "encoder_hidden_states", "timestep"),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        timestep_scale=1000.0,
        position=position,
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning),
        lengths=lambda given: {"text": registers + given["encoder_hidden_states"].shape[1]},
    )


def text_states(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The text tokens, (batch, token, channel)."""
    length = settings["max_sequence_length"]
    return {"encoder_hidden_states": pipe.encode_prompt(texts, None, False, max_sequence_length=length)[0]}


def layout(pipe: Any, height: int, width: int, settings: Mapping[str, Any]) -> Layout:
    """Tokens and latents of a picture of height x width pixels."""
    transformer, config = pipe.transformer, pipe.transformer.config
    rows, columns = height // pipe.vae_scale_factor, width // pipe.vae_scale_factor
    return Layout(
        image_grid=(rows // config.patch_size, columns // config.patch_size),
        text_tokens=transformer.register_tokens.shape[1] + settings["max_sequence_length"],
        latents={"latent_channel": config.in_channels, "latent_y": rows, "latent_x": columns},
        pixel_multiple=pipe.vae_scale_factor * config.patch_size,
    )


OWN_GUIDANCE = OwnGuidance("uncond first", lambda given: given["guidance_scale"] if given["guidance_scale"] > 1 else None)
PIPELINE = PipelineSpec(
    pipeline_class="AuraFlowPipeline",
    layout=layout,
    guidance_off={"guidance_scale": 1.0},
    default_size=default_size,
    settings=lambda pipe: {"max_sequence_length": 256},
    tokenizers={"tokenizer": "max_sequence_length"},
    settings_maximum={"max_sequence_length": 512},
    conditions=no_conditions,
    text_states=text_states,
    unconditional=lambda pipe, negative, settings: text_states(pipe, [negative], settings),
)
FAMILY = ModelFamily("auraflow", "AuraFlowTransformer2DModel", describe, (PIPELINE,), OWN_GUIDANCE)
