"""CogVideoX 1.0 and 1.5, text to video (`CogVideoXTransformer3DModel`, `CogVideoXPipeline`), as in diffusers 0.42.

Joint blocks return (image, text), the reverse of most families. Image tokens are (frame, y, x). A block projects the timestep
twice: `norm1.linear` for attention and `norm2.linear` for the MLP. Each projection holds both streams' chunks, the image's
first. Text does not enter the gates. Attention returns each stream's tokens. The MLP takes and returns both as one state, text
first. `temb` enters again in `norm_out`. The transformer reads the batch size before the blocks and uses it after them.

One LayerNorm with its own weights serves both streams, so none is listed. Attention's values are shared by both streams, so
attention cannot be perturbed. Latents are (row, frame, channel, y, x). Version 1.5 puts two latent frames into a token. Its
pipeline generates one extra latent frame, the first, and discards it. The published schedulers predict v and start at pure
noise, where sigma is infinite. The 2B model adds a position embedding of space and time, so no spatial `position` is given.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from interp.base.errors import InputError, ModelError
from interp.models.anatomy import Anatomy, Block, Conditioning, Modulation, Reentry, Tap
from interp.models.families.blocks import ROWS, STATES, TEXT_FIRST, embed_timestep, numbered, project, text_stream, video_stream
from interp.models.families.calls import Settings, check_frames, encoder, own_tokens, patch_layout, text_pipeline, video_layout
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance, guidance_scale
from interp.models.lazy import torch

HIDDEN = {"image": 0, "text": 1}
PREDICTIONS = {"v_prediction": "v"}  # by the scheduler's `prediction_type`


def both_streams(norm: str, gate: str) -> Modulation:
    """The projection of one gate, for the image and then for the text."""
    chunks = tuple(f"{kind}.{gate}" for kind in ("shift", "scale", "alpha"))
    return Modulation("image", f"{norm}.linear", (*chunks, *(f"text/{chunk}" for chunk in chunks)), partial(project, norm))


JOINT = Block(
    path="",
    kind="joint",
    hidden=HIDDEN,
    reads=(
        both_streams("norm1", "attn"),
        *(Tap(stream, "modulated", "attn", "norm1", item=item) for stream, item in HIDDEN.items()),
        *(Tap(stream, "branch", "attn", "attn1", item=item) for stream, item in HIDDEN.items()),
        Tap("image", "mid", None, "norm2", "input"),
        Tap("text", "mid", None, "norm2", "input", argument="encoder_hidden_states"),
        both_streams("norm2", "mlp"),
        *(Tap(stream, "modulated", "mlp", "norm2", item=item) for stream, item in HIDDEN.items()),
        *(Tap(stream, "branch", "mlp", "ff", joint=TEXT_FIRST) for stream in HIDDEN),
    ),
    row_inputs=ROWS,
    state_inputs=STATES,
)
encode = encoder(encoder_hidden_states=0)


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `CogVideoXTransformer3DModel`."""
    config = transformer.config
    if config.ofs_embed_dim is not None:
        raise ModelError("CogVideoXTransformer3DModel: weights that take an offset (1.5, image to video) cannot be traced")
    width = config.num_attention_heads * config.attention_head_dim
    return Anatomy(
        family="cogvideox",
        model_class="CogVideoXTransformer3DModel",
        streams=(video_stream(width), text_stream(width)),
        blocks=numbered(transformer, transformer_blocks=JOINT),
        row_inputs=("hidden_states", "encoder_hidden_states", "timestep"),
        reentries=(Reentry("norm_out", "temb"),),
        conditioning=Conditioning({"timestep": "timestep"}, partial(embed_timestep, "time_proj", "time_embedding")),
        forks=False,
    )


def settings(pipe: Any) -> dict[str, Any]:
    """Text length and frames. A learned position embedding fixes the length."""
    config = pipe.transformer.config
    length = 226 if config.use_rotary_positional_embeddings else config.max_text_seq_length
    return {"max_sequence_length": length, "num_frames": config.sample_frames}


def padding(pipe: Any) -> int:
    """Leading latent frames that fill the first token and are discarded."""
    return (pipe.transformer.config.patch_size_t or 1) - 1


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a video of height x width pixels. The autoencoder decodes an odd number of latent frames."""
    config, frames, length = pipe.transformer.config, settings["num_frames"], settings["max_sequence_length"]
    if not config.use_rotary_positional_embeddings and length != config.max_text_seq_length:
        raise InputError(f"max_sequence_length must be {config.max_text_seq_length} for these weights; got {length}")
    of_time, kind, every = config.patch_size_t or 1, pipe.scheduler.config.prediction_type, pipe.vae_scale_factor_temporal
    check_frames(frames, every * math.lcm(2, of_time))
    kinds = (PREDICTIONS.get(kind, kind),)
    still = patch_layout(pipe, height, width, length, scale=pipe.vae_scale_factor_spatial, least=8, prediction=kinds)
    video = video_layout(still, frames, every)
    channel, (frame, count), *place = video.latents.items()
    count += padding(pipe)
    sizes = {**video.sizes, "image": (count // of_time, *still.sizes["image"])}
    return dataclasses.replace(video, latents=dict([(frame, count), channel, *place]), sizes=sizes)


def default_size(pipe: Any) -> tuple[int, int]:
    """The size in the weights' config, pixels."""
    config, scale = pipe.transformer.config, pipe.vae_scale_factor_spatial
    return config.sample_height * scale, config.sample_width * scale


def unpack(pipe: Any, latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(row, frame, channel, y, x) to (row, channel, frame, y, x), without the discarded frames."""
    return latents[:, padding(pipe) :].transpose(1, 2)


def pack(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    """(row, channel, frame, y, x) to (row, frame, channel, y, x), the first frame repeated for the discarded ones."""
    found = latents.transpose(1, 2)
    return torch.cat([*[found[:, :1]] * padding(pipe), found], dim=1)


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The pipeline's scale, or an error where it changes from step to step."""
    scale = guidance_scale(given)
    if scale is not None and given["use_dynamic_cfg"]:
        raise InputError(
            "guided: use_dynamic_cfg changes the scale of CogVideoXPipeline's own guidance, and of any guidance added to it, "
            "from step to step; leave it out, or use interp.generate(guidance=...)"
        )
    return scale


PIPELINE = text_pipeline(
    "CogVideoXPipeline",
    layout,
    encode,
    default_size=default_size,
    settings=settings,
    unpack=unpack,
    pack=pack,
    moving=True,
    own_tokens=own_tokens(("tokenizer", "max_sequence_length")),
)
FAMILY = ModelFamily(
    "cogvideox", "CogVideoXTransformer3DModel", describe, (PIPELINE,), OwnGuidance("uncond first", own_scale, follows=True)
)
