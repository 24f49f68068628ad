"""Stable Diffusion 3 (`SD3Transformer2DModel`, `StableDiffusion3Pipeline`), as in diffusers 0.42.

Joint blocks return (text, image). Each stream has its own AdaLN-Zero projection of the conditioning `temb`. The last block has
no text output, and its text projection is scale and shift alone. `temb` enters again in `norm_out`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Modulation, Norm, Reentry, Tap
from interp.models.families.described import ModelFamily
from interp.models.families.pipeline import Layout, OwnGuidance, PipelineSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

ADALN_ZERO = ("shift.attn", "scale.attn", "alpha.attn", "shift.mlp", "scale.mlp", "alpha.mlp")
ADALN_CONTINUOUS = ("scale.attn", "shift.attn")
ADALN_ZERO_X = (*ADALN_ZERO, "shift.attn2", "scale.attn2", "alpha.attn2")  # blocks with dual attention
TWO_STREAM_NORMS = (
    Norm("norm1.norm"),
    Norm("norm1_context.norm", ("text",)),
    Norm("norm2"),
    Norm("norm2_context", ("text",)),
)
BLOCK_ROW_INPUTS = ("hidden_states", "encoder_hidden_states", "temb")


def project(norm: str, block: nn.Module, inputs: Inputs) -> Tensor:
    """AdaLN projection of a block: linear(silu(temb)), (batch, chunk * channel)."""
    module: Any = block.get_submodule(norm)
    projected: Tensor = module.linear(module.silu(inputs["temb"]).to(inputs["hidden_states"].dtype))
    return projected


def joint_block(path: str, block: Any) -> Block:
    """A joint block; `block.context_pre_only` marks the last one, `block.use_dual_attention` the first ones of SD3.5-Medium."""
    last, dual = block.context_pre_only, block.use_dual_attention
    image = Modulation("image", "norm1.linear", ADALN_ZERO_X if dual else ADALN_ZERO, partial(project, "norm1"))
    text_chunks = ADALN_CONTINUOUS if last else ADALN_ZERO
    text = Modulation("text", "norm1_context.linear", text_chunks, partial(project, "norm1_context"))
    reads: list[Modulation | Tap] = [image, Tap("image", "modulated", "attn", "norm1", item=0)]
    reads += [Tap("image", "modulated", "attn2", "norm1", item=5)] if dual else []
    reads += [text, Tap("text", "modulated", "attn", "norm1_context", item=None if last else 0)]
    reads += [Tap("image", "branch", "attn", "attn", item=0)]
    reads += [] if last else [Tap("text", "branch", "attn", "attn", item=1)]
    reads += [Tap("image", "branch", "attn2", "attn2")] if dual else []
    reads += mlp_taps("image", "norm2", "ff")
    reads += [] if last else mlp_taps("text", "norm2_context", "ff_context")
    return Block(
        path=path,
        kind="joint-dual" if dual else "joint",
        hidden={"image": 1} if last else {"text": 0, "image": 1},
        reads=tuple(reads),
        row_inputs=BLOCK_ROW_INPUTS,
        state_inputs={"image": "hidden_states", "text": "encoder_hidden_states"},
        norms=TWO_STREAM_NORMS[:-1] if last else TWO_STREAM_NORMS,
        attention=("attn.to_v", "attn.to_out.0"),
    )


def mlp_taps(stream: str, norm: str, mlp: str) -> list[Modulation | Tap]:
    """A stream's state before its MLP, and the MLP's input and output."""
    return [
        Tap(stream, "mid", None, norm, "input"),
        Tap(stream, "modulated", "mlp", mlp, "input"),
        Tap(stream, "branch", "mlp", mlp),
    ]


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it; `hidden_states` gives only the dtype."""
    pooled = inputs["pooled_projections"]
    return {"temb": transformer.time_text_embed(inputs["timestep"], pooled), "hidden_states": pooled}


def position(transformer: Any, grid: tuple[int, int]) -> Tensor:
    """The position embedding of a picture of grid (y, x) tokens: (token, channel)."""
    embed = transformer.pos_embed
    rows, columns = (side * embed.patch_size for side in grid)
    table: Tensor = embed.cropped_pos_embed(rows, columns) if embed.pos_embed_max_size else embed.pos_embed
    return table[0]


def pooled_text(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The pooled text, (batch, channel): the only text input of the gates."""
    pooled = pipe.encode_prompt(texts, texts, texts, do_classifier_free_guidance=False, **settings)[2]
    return {"pooled_projections": pooled}


def text_states(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The text tokens, (batch, token, channel)."""
    states = pipe.encode_prompt(texts, texts, texts, do_classifier_free_guidance=False, **settings)[0]
    return {"encoder_hidden_states": states}


def unconditional(pipe: Any, negative_prompt: str, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The negative prompt, pooled and as tokens."""
    return {**pooled_text(pipe, [negative_prompt], settings), **text_states(pipe, [negative_prompt], settings)}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of an `SD3Transformer2DModel`."""
    blocks = enumerate(transformer.transformer_blocks)
    return Anatomy(
        family="sd3",
        model_class="SD3Transformer2DModel",
        channels=transformer.inner_dim,
        blocks=tuple(joint_block(f"transformer_blocks.{index}", block) for index, block in blocks),
        row_inputs=("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep"),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        position=position,
        conditioning=Conditioning({"timestep": "timestep", "text": "pooled_projections"}, block_conditioning),
        last_norm=Norm("norm_out.norm"),
    )


def layout(pipe: Any, height: int, width: int, settings: Mapping[str, Any]) -> Layout:
    """Tokens and latents of a picture of height x width pixels."""
    config = pipe.transformer.config
    rows, columns = height // pipe.vae_scale_factor, width // pipe.vae_scale_factor
    return Layout(
        image_grid=(rows // config.patch_size, columns // config.patch_size),
        text_tokens=pipe.tokenizer_max_length + settings["max_sequence_length"],
        latents={"latent_channel": config.in_channels, "latent_y": rows, "latent_x": columns},
        pixel_multiple=pipe.vae_scale_factor * pipe.patch_size,
    )


OWN_GUIDANCE = OwnGuidance("uncond first", lambda given: given["guidance_scale"] if given["guidance_scale"] > 1 else None)
PIPELINE = PipelineSpec(
    pipeline_class="StableDiffusion3Pipeline",
    layout=layout,
    guidance_off={"guidance_scale": 1.0},
    settings=lambda pipe: {"max_sequence_length": 256},
    tokenizers={"tokenizer": None, "tokenizer_2": None, "tokenizer_3": "max_sequence_length"},
    settings_maximum={"max_sequence_length": 512},
    conditions=pooled_text,
    text_states=text_states,
    unconditional=unconditional,
)
FAMILY = ModelFamily("sd3", "SD3Transformer2DModel", describe, (PIPELINE,), OWN_GUIDANCE)
