"""Mochi 1, text to video (`MochiTransformer3DModel`, `MochiPipeline`), as in diffusers 0.42.

Joint blocks return (image, text). Tokens are (frame, y, x). The last block returns its text unchanged: it has no text output,
and its text projection is a scale alone. Norms are RMS norms. There are no shifts. Each branch is normalised again before its
gate, which is a tanh:

    z[k+1] = mid + tanh(alpha.mlp) RMSNorm(MLP(...)),        mid = z[k] + tanh(alpha.attn) RMSNorm(attention)

A branch here is the output of the second norm. No norm is listed as a LayerNorm. The gates depend on the timestep and the text:
the transformer pools the text tokens itself, under their mask. `temb` enters again in `norm_out`.

The scheduler runs backwards: its timesteps and sigmas rise from noise at 0. The transformer predicts minus the velocity.
Its text is half as wide as its picture: 1536 and 3072 channels.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from interp.base.errors import InputError
from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Modulation, Reentry, Tap
from interp.models.families.blocks import STATES, text_stream, video_stream
from interp.models.families.calls import (
    Settings,
    denormalise,
    encoder,
    normalise,
    patch_layout,
    text_pipeline,
    video_layout,
)
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance
from interp.models.families.schedules import Levels
from interp.models.lazy import torch

CHUNKS = ("scale.attn", "alpha.attn", "scale.mlp", "alpha.mlp")
ROWS = ("hidden_states", "encoder_hidden_states", "temb", "encoder_attention_mask")
LINEAR_UP_TO = 0.025  # noise removed in the first half of the steps
encode = encoder(encoder_hidden_states=0, encoder_attention_mask=1)  # the gates depend on both


def project(path: str, block: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    """AdaLN projection of a block: linear(silu(temb)), (batch, chunk * channel)."""
    norm, _, linear = path.rpartition(".")
    module: Any = block.get_submodule(norm)
    projected: torch.Tensor = getattr(module, linear)(module.silu(inputs["temb"]))
    return projected


def modulation(stream: str, path: str, chunks: tuple[str, ...]) -> Modulation:
    """The AdaLN projection of a stream, with tanh gates."""
    return Modulation(stream, path, chunks, partial(project, path), tanh=True)


def branches(stream: str, suffix: str = "") -> list[Tap]:
    """A stream's normalised branches, which its gates multiply, and the state between them."""
    return [
        Tap(stream, "branch", "attn", f"norm2{suffix}.norm"),
        Tap(stream, "mid", None, f"norm3{suffix}", "input"),
        Tap(stream, "modulated", "mlp", f"ff{suffix}", "input"),
        Tap(stream, "branch", "mlp", f"norm4{suffix}.norm"),
    ]


def joint_block(path: str, *, last: bool) -> Block:
    """A joint block; the last one does not return its text."""
    reads: list[Modulation | Tap] = [
        modulation("image", "norm1.linear", CHUNKS),
        Tap("image", "modulated", "attn", "norm1", item=0),
    ]
    linear = modulation("text", "norm1_context.linear_1", CHUNKS[:1]) if last else None
    reads.append(linear or modulation("text", "norm1_context.linear", CHUNKS))
    reads.append(Tap("text", "modulated", "attn", "norm1_context", item=None if last else 0))
    reads += branches("image")
    reads += branches("text", "_context") if not last else []
    return Block(
        path=path,
        kind="joint",
        hidden={"image": 0} if last else {"image": 0, "text": 1},
        reads=tuple(reads),
        row_inputs=ROWS,
        state_inputs=STATES,
        attention=("attn1.to_v", "attn1.to_out.0"),
    )


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it, from the text tokens under their mask."""
    states = inputs["encoder_hidden_states"]
    temb, _ = transformer.time_embed(
        inputs["timestep"], states, inputs["encoder_attention_mask"], hidden_dtype=transformer.dtype
    )
    return {"temb": temb}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `MochiTransformer3DModel`."""
    config, count = transformer.config, len(transformer.transformer_blocks)
    return Anatomy(
        family="mochi",
        model_class="MochiTransformer3DModel",
        streams=(
            video_stream(config.num_attention_heads * config.attention_head_dim),
            text_stream(config.pooled_projection_dim),
        ),
        blocks=tuple(joint_block(f"transformer_blocks.{n}", last=n == count - 1) for n in range(count)),
        row_inputs=("hidden_states", "encoder_hidden_states", "encoder_attention_mask", "timestep"),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        conditioning=Conditioning(
            {"timestep": "timestep", "text": "encoder_hidden_states"},
            block_conditioning,
            further=("encoder_attention_mask",),
            pooled=False,
        ),
        forks=False,
    )


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a video of height x width pixels."""
    size, kinds = pipe.vae_spatial_scale_factor, ("minus_velocity",)
    still = patch_layout(pipe, height, width, settings["max_sequence_length"], scale=size, least=8, prediction=kinds)
    return video_layout(still, settings["num_frames"], pipe.vae_temporal_scale_factor)


def sigmas(steps: int) -> np.ndarray[Any, Any]:
    """The pipeline's noise levels: the first half of the steps linear, the others quadratic."""
    from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule

    if steps < 2:
        raise InputError(f"steps: MochiPipeline needs at least 2 steps; got {steps}")
    return np.array(linear_quadratic_schedule(steps, LINEAR_UP_TO))


PIPELINE = text_pipeline(
    "MochiPipeline",
    layout,
    encode,
    longest=256,
    default_size=lambda pipe: (pipe.default_height, pipe.default_width),
    settings=lambda pipe: {"max_sequence_length": 256, "num_frames": 19},
    conditions=encode,
    levels=Levels(sigmas),
    to_autoencoder=denormalise,
    from_autoencoder=normalise,
    moving=True,
)
FAMILY = ModelFamily("mochi", "MochiTransformer3DModel", describe, (PIPELINE,), OwnGuidance("uncond first", follows=True))
