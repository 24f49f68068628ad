"""Hunyuan-DiT (`HunyuanDiT2DModel`, `HunyuanDiTPipeline`), as in diffusers 0.42: no gates.

There is one stream, with text through cross-attention (`attn2`). Time and pooled text enter a block only as the shift of its
first norm. No alpha multiplies a branch, so there are hidden states, branches and a shift, and no gates. A block of the second
half first makes a new state from its input and the output of its counterpart in the first half (a long skip). What it adds to
its input is then not the sum of its branches. `temb` enters again in `norm_out`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from interp.models.anatomy import Anatomy, Block, Inputs, Modulation, Norm, Reentry, Tap
from interp.models.families.described import ModelFamily
from interp.models.families.pipeline import Layout, OwnGuidance, PipelineSpec, pipeline_size

if TYPE_CHECKING:
    from torch import Tensor, nn

ROW_INPUTS = (
    "hidden_states",
    "timestep",
    "encoder_hidden_states",
    "text_embedding_mask",
    "encoder_hidden_states_t5",
    "text_embedding_mask_t5",
    "image_meta_size",
    "style",
)
CLIP_TOKENS, T5_TOKENS = 77, 256  # the pipeline pads every prompt to these lengths


def shift(block: nn.Module, inputs: Inputs) -> Tensor:
    """The shift that the first norm adds to every token: (batch, channel)."""
    norm: Any = block.get_submodule("norm1")
    given = inputs["temb"]
    projected: Tensor = norm.linear(norm.silu(given.float()).to(given.dtype))
    return projected


def block(path: str, remakes: bool) -> Block:
    """A block: self-attention, cross-attention and MLP, none of them gated."""
    return Block(
        path=path,
        kind="skip" if remakes else "cross",
        hidden={"image": None},
        reads=(
            Modulation("image", "norm1.linear", ("shift.attn",), shift),
            Tap("image", "modulated", "attn", "attn1", "input"),
            Tap("image", "branch", "attn", "attn1", gated=False),
            Tap("image", "branch", "attn2", "attn2", gated=False),
            Tap("image", "mid", None, "norm3", "input"),
            Tap("image", "modulated", "mlp", "ff", "input"),
            Tap("image", "branch", "mlp", "ff", gated=False),
        ),
        row_inputs=("hidden_states", "encoder_hidden_states", "temb", "skip"),
        state_inputs={"image": "hidden_states"},
        attention=("attn1.to_v", "attn1.to_out.0"),
        remakes=remakes,
    )


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `HunyuanDiT2DModel`."""
    blocks = enumerate(transformer.blocks)
    return Anatomy(
        family="hunyuandit",
        model_class="HunyuanDiT2DModel",
        channels=transformer.inner_dim,
        blocks=tuple(block(f"blocks.{index}", one.skip_linear is not None) for index, one in blocks),
        row_inputs=ROW_INPUTS,
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        last_norm=Norm("norm_out.norm"),
        forks=False,
    )


def text_states(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tokens of both encoders, (batch, token, channel), and their masks. T5's also set the shift."""
    encode = functools.partial(pipe.encode_prompt, texts, dtype=pipe.transformer.dtype, do_classifier_free_guidance=False)
    clip, _, clip_mask, _ = encode(max_sequence_length=CLIP_TOKENS, text_encoder_index=0)
    t5, _, t5_mask, _ = encode(max_sequence_length=T5_TOKENS, text_encoder_index=1)
    return {
        "encoder_hidden_states": clip,
        "text_embedding_mask": clip_mask,
        "encoder_hidden_states_t5": t5,
        "text_embedding_mask_t5": t5_mask,
    }


def layout(pipe: Any, height: int, width: int, settings: Mapping[str, Any]) -> Layout:
    """Tokens and latents; a learned sigma never enters the latents."""
    config, kind = pipe.transformer.config, pipe.scheduler.config.prediction_type
    rows, columns = height // pipe.vae_scale_factor, width // pipe.vae_scale_factor
    first = "v" if kind == "v_prediction" else "epsilon"
    return Layout(
        image_grid=(rows // config.patch_size, columns // config.patch_size),
        text_tokens=0,
        latents={"latent_channel": config.in_channels, "latent_y": rows, "latent_x": columns},
        pixel_multiple=pipe.vae_scale_factor * config.patch_size,
        prediction=(first, "sigma"),
    )


OWN_GUIDANCE = OwnGuidance(
    "uncond first", lambda given: given["guidance_scale"] if given["guidance_scale"] > 1 else None, lambda transformer: 2
)
PIPELINE = PipelineSpec(
    pipeline_class="HunyuanDiTPipeline",
    layout=layout,
    guidance_off={"guidance_scale": 1.0, "use_resolution_binning": False},
    default_size=pipeline_size,
    tokenizers={"tokenizer": None, "tokenizer_2": None},
    text_states=text_states,
    unconditional=lambda pipe, negative, settings: text_states(pipe, [negative], settings),
)
FAMILY = ModelFamily("hunyuandit", "HunyuanDiT2DModel", describe, (PIPELINE,), OWN_GUIDANCE)
