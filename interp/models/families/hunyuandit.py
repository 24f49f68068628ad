"""Hunyuan-DiT (`HunyuanDiT2DModel`, `HunyuanDiTPipeline`), as in diffusers 0.42: no gates.

There is one stream, with text through cross-attention (`attn2`). Time and pooled text enter a block only as the shift of its
first norm. No alpha multiplies a branch, so there are hidden states, branches and a shift, and no gates. A block of the second
half first makes a new state from its input and the output of its counterpart in the first half (a long skip). What it adds to
its input is then not the sum of its branches. `temb` enters again in `norm_out`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from interp.models.anatomy import Anatomy, Inputs, Modulation, Norm, Reentry
from interp.models.families.blocks import cross_block, image_stream, mlp_taps, numbered
from interp.models.families.calls import Settings, patch_layout
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance, PipelineSpec, scale_without_rescaling
from interp.models.lazy import torch

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


def shift(block: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    """The shift that the first norm adds to every token: (batch, channel)."""
    norm: Any = block.get_submodule("norm1")
    given = inputs["temb"]
    projected: torch.Tensor = norm.linear(norm.silu(given.float()).to(given.dtype))
    return projected


CROSS = cross_block(
    Modulation("image", "norm1.linear", ("shift.attn",), shift),
    *mlp_taps("image", "norm3", "ff", gated=False),
    rows=("hidden_states", "encoder_hidden_states", "temb", "skip"),
    gated=False,
)
SKIP = dataclasses.replace(CROSS, kind="skip", remakes=True)


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `HunyuanDiT2DModel`."""
    crossed, skipped = (numbered(transformer, blocks=block) for block in (CROSS, SKIP))
    remakes = [block.skip_linear is not None for block in transformer.blocks]
    return Anatomy(
        family="hunyuandit",
        model_class="HunyuanDiT2DModel",
        streams=(image_stream(transformer.inner_dim),),
        blocks=tuple(skipped[index] if skips else crossed[index] for index, skips in enumerate(remakes)),
        row_inputs=ROW_INPUTS,
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        last_norm=Norm("norm_out.norm"),
        forks=False,
    )


def text_states(pipe: Any, texts: list[str], settings: Settings) -> dict[str, torch.Tensor]:
    """The tokens of both encoders, (batch, token, channel), and their masks. T5's also set the shift."""
    encode = functools.partial(pipe.encode_prompt, texts, dtype=pipe.transformer.dtype, do_classifier_free_guidance=False)
    clip, _, clip_mask, _ = encode(max_sequence_length=CLIP_TOKENS, text_encoder_index=0)
    t5, _, t5_mask, _ = encode(max_sequence_length=T5_TOKENS, text_encoder_index=1)
    return dict(zip(ROW_INPUTS[2:6], (clip, clip_mask, t5, t5_mask), strict=True))


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture; a learned sigma never enters the latents."""
    first = "v" if pipe.scheduler.config.prediction_type == "v_prediction" else "epsilon"
    return patch_layout(pipe, height, width, prediction=(first, "sigma"))


PIPELINE = PipelineSpec(
    pipeline_class="HunyuanDiTPipeline",
    layout=layout,
    guidance_off={"guidance_scale": 1.0, "use_resolution_binning": False},
    tokenizers={"tokenizer": None, "tokenizer_2": None},
    text_states=text_states,
    unconditional=lambda pipe, negative, settings: text_states(pipe, [negative], settings),
)
OWN_GUIDANCE = OwnGuidance("uncond first", scale_without_rescaling, lambda transformer: 2)
FAMILY = ModelFamily("hunyuandit", "HunyuanDiT2DModel", describe, (PIPELINE,), OWN_GUIDANCE)
