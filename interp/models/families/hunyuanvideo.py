"""HunyuanVideo, text to video (`HunyuanVideoTransformer3DModel`, `HunyuanVideoPipeline`), as in diffusers 0.42.

The blocks are FLUX.1's, with the image before the text. Double blocks come before single blocks. Both return (image, text).
Image tokens are (frame, y, x). A single block joins the streams. It has one projection and one gate, shared by both streams and
by attention and MLP, which `proj_out` joins. The gates depend on the timestep, the pooled text (CLIP) and, where the weights
take one, the embedded guidance. The transformer receives the guidance times 1000. `temb` enters again in `norm_out`.

The text tokens come from a language model, under a template. The transformer refines them before the blocks
(`context_embedder`, whose gates are not in the anatomy). A mask hides padding from attention.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.base.errors import ModelError
from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Modulation, Norm, Reentry, Tap
from interp.models.families.described import ModelFamily
from interp.models.families.flux import ADALN_ZERO_SINGLE, STATES, own_scale
from interp.models.families.pipeline import Layout, OwnGuidance, PipelineSpec, check_frames
from interp.models.families.sd3 import ADALN_ZERO, BLOCK_ROW_INPUTS, TWO_STREAM_NORMS, mlp_taps, project

if TYPE_CHECKING:
    from torch import Tensor

HIDDEN = {"image": 0, "text": 1}
JOINED = ("image", "text")  # order of the tokens inside a single block
ROWS = (*BLOCK_ROW_INPUTS, "attention_mask")


def double_block(path: str) -> Block:
    """A double block: two streams with joint attention."""
    return Block(
        path=path,
        kind="double",
        hidden=HIDDEN,
        reads=(
            Modulation("image", "norm1.linear", ADALN_ZERO, partial(project, "norm1")),
            Tap("image", "modulated", "attn", "norm1", item=0),
            Modulation("text", "norm1_context.linear", ADALN_ZERO, partial(project, "norm1_context")),
            Tap("text", "modulated", "attn", "norm1_context", item=0),
            Tap("image", "branch", "attn", "attn", item=0),
            Tap("text", "branch", "attn", "attn", item=1),
            Tap("image", "mid", None, "norm2", "input"),
            Tap("text", "mid", None, "norm2_context", "input"),
            *mlp_taps("image", "norm2", "ff")[1:],
            *mlp_taps("text", "norm2_context", "ff_context")[1:],
        ),
        row_inputs=ROWS,
        state_inputs=STATES,
        norms=TWO_STREAM_NORMS,
        attention=("attn.to_v", "attn.to_out.0"),
    )


def single_block(path: str) -> Block:
    """A single block: both streams joined, attention and MLP in parallel with one gate."""
    return Block(
        path=path,
        kind="single",
        hidden=HIDDEN,
        reads=(
            Modulation("image", "norm.linear", ADALN_ZERO_SINGLE, partial(project, "norm"), shared_with=("text",)),
            *(Tap(stream, "modulated", "attn", "norm", item=0, joint=JOINED) for stream in JOINED),
            *(Tap(stream, "branch", "attn", "proj_out", joint=JOINED) for stream in JOINED),
        ),
        row_inputs=ROWS,
        state_inputs=STATES,
        norms=(Norm("norm.norm", JOINED),),
    )


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it; `hidden_states` gives only the dtype."""
    pooled = inputs["pooled_projections"]
    temb, _ = transformer.time_text_embed(inputs["timestep"], pooled, inputs.get("guidance"))
    return {"temb": temb, "hidden_states": pooled}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `HunyuanVideoTransformer3DModel`: blocks are numbered consecutively, double blocks first."""
    config = transformer.config
    if config.image_condition_type is not None:
        kind = config.image_condition_type
        raise ModelError(f"HunyuanVideoTransformer3DModel: weights that take a picture ({kind}) cannot be traced")
    doubles = [double_block(f"transformer_blocks.{index}") for index in range(len(transformer.transformer_blocks))]
    singles = [
        single_block(f"single_transformer_blocks.{index}") for index in range(len(transformer.single_transformer_blocks))
    ]
    guided = ("guidance",) if config.guidance_embeds else ()
    text = ("encoder_hidden_states", "encoder_attention_mask", "pooled_projections")
    return Anatomy(
        family="hunyuanvideo",
        model_class="HunyuanVideoTransformer3DModel",
        channels=config.num_attention_heads * config.attention_head_dim,
        blocks=(*doubles, *singles),
        row_inputs=("hidden_states", *text, "timestep", *guided),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        conditioning=Conditioning(
            {"timestep": "timestep", "text": "pooled_projections", **{name: name for name in guided}}, block_conditioning
        ),
        last_norm=Norm("norm_out.norm"),
        guidance_scale=1000.0,
        forks=False,
    )


def settings(pipe: Any) -> dict[str, Any]:
    """Text length and frames, and the embedded guidance where the weights take one."""
    guided = {"embedded_guidance": 6.0} if pipe.transformer.config.guidance_embeds else {}
    return {"max_sequence_length": 256, "num_frames": 129, **guided}


def layout(pipe: Any, height: int, width: int, settings: Mapping[str, Any]) -> Layout:
    """Tokens and latents of a video of height x width pixels."""
    config, frames, every = pipe.transformer.config, settings["num_frames"], pipe.vae_scale_factor_temporal
    check_frames(frames, every)
    latent_frames = (frames - 1) // every + 1
    rows, columns = height // pipe.vae_scale_factor_spatial, width // pipe.vae_scale_factor_spatial
    return Layout(
        image_grid=(rows // config.patch_size, columns // config.patch_size),
        text_tokens=settings["max_sequence_length"],
        latents={"latent_channel": config.in_channels, "latent_frame": latent_frames, "latent_y": rows, "latent_x": columns},
        pixel_multiple=math.lcm(16, pipe.vae_scale_factor_spatial * config.patch_size),
        token_frames=latent_frames // config.patch_size_t,
        frames=frames,
    )


def encode(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Text tokens, (batch, token, channel), pooled text, (batch, channel), and the tokens' mask, in the transformer's dtype."""
    dtype, length = pipe.transformer.dtype, settings["max_sequence_length"]
    states, pooled, mask = pipe.encode_prompt(texts, max_sequence_length=length)
    return states.to(dtype), pooled.to(dtype), mask.to(dtype)


def conditions(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The pooled text, (batch, channel), and the embedded guidance, times 1000, where the weights take one."""
    import torch

    pooled = encode(pipe, texts, settings)[1]
    if "embedded_guidance" not in settings:
        return {"pooled_projections": pooled}
    given = [settings["embedded_guidance"]] * len(texts)
    return {"pooled_projections": pooled, "guidance": torch.tensor(given, dtype=pooled.dtype, device=pooled.device) * 1000.0}


def text_states(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The text tokens and their mask, as the transformer takes them."""
    states, _, mask = encode(pipe, texts, settings)
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


def unconditional(pipe: Any, negative_prompt: str, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The negative prompt, pooled and as tokens; an embedded guidance is unchanged."""
    states, pooled, mask = encode(pipe, [negative_prompt], settings)
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask, "pooled_projections": pooled}


OWN_GUIDANCE = OwnGuidance("calls", own_scale)
PIPELINE = PipelineSpec(
    pipeline_class="HunyuanVideoPipeline",
    layout=layout,
    guidance_off={"true_cfg_scale": 1.0},
    default_size=lambda pipe: (720, 1280),
    settings=settings,
    argument_of={"embedded_guidance": "guidance_scale"},
    tokenizers={"tokenizer": "max_sequence_length", "tokenizer_2": None},
    settings_maximum={"max_sequence_length": 256},
    conditions=conditions,
    text_states=text_states,
    unconditional=unconditional,
    sigmas=lambda steps: np.linspace(1.0, 0.0, steps + 1)[:-1],
    moving=True,
)
FAMILY = ModelFamily("hunyuanvideo", "HunyuanVideoTransformer3DModel", describe, (PIPELINE,), OWN_GUIDANCE)
