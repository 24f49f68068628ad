"""Stable Audio 1.0 (`StableAudioDiTModel`, `StableAudioPipeline`), as in diffusers 0.42: sound, no gates.

There is one stream of sound, `audio`, with text through cross-attention (`attn2`). Blocks have no alpha, shift or scale.
Time and duration enter as one token before the sound's tokens, which no site shows. The duration also follows the text tokens.
Nothing enters after the blocks. The transformer receives one timestep for all rows.

A row's picture is its spectrogram. Latents cannot be decoded to pictures here, nor pictures encoded. The published scheduler
needs torchsde.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn

from interp.base.errors import ModelError
from interp.base.streams import Stream
from interp.models.anatomy import Anatomy, Block, Lengths, Tap
from interp.models.families.blocks import cross_block, mlp_taps, numbered
from interp.models.families.outputs import spectrogram_size
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance, PipelineSpec
from interp.models.hook_points import REST
from interp.models.lazy import torch


@dataclasses.dataclass(frozen=True)
class LedBlock(Block):
    """A block with an extra first token that is not part of the stream."""

    def with_states(self, output: Any, states: Mapping[str, torch.Tensor], lengths: Lengths) -> Any:
        """The block's output with the stream's state behind the extra token. Without an output that token is zero: nothing
        after the blocks reads it.
        """
        state = states[SOUND]
        return torch.cat([torch.zeros_like(state[:, :1]) if output is None else output[:, :1], state], dim=1)

    def _cut(self, state: torch.Tensor, stream: str, lengths: Lengths) -> torch.Tensor:
        return state[:, 1:]


SOUND = "audio"
LedTap = partial(Tap, joint=(REST, SOUND))
CROSS = cross_block(
    None,
    *mlp_taps(SOUND, "norm3", "ff", tap=LedTap, gated=False),
    rows=("hidden_states", "encoder_hidden_states"),
    gated=False,
    tap=LedTap,
    block=LedBlock,
    stream=SOUND,
)


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `StableAudioDiTModel`."""
    return Anatomy(
        family="stableaudio",
        model_class="StableAudioDiTModel",
        streams=(Stream(SOUND, "generated", transformer.inner_dim, ("time",)),),
        blocks=numbered(transformer, transformer_blocks=CROSS),
        row_inputs=("hidden_states", "timestep", "encoder_hidden_states", "global_hidden_states"),
        reentries=(),
    )


def seconds(pipe: Any) -> float:
    """The duration of the sound, seconds."""
    return float(pipe.transformer.config.sample_size * pipe.vae.hop_length / pipe.vae.config.sampling_rate)


def default_size(pipe: Any) -> tuple[int, int]:
    """Height and width of the spectrogram, pixels."""
    return spectrogram_size(int(seconds(pipe) * pipe.vae.config.sampling_rate))


def layout(pipe: Any, height: int, width: int, settings: Mapping[str, Any]) -> Layout:
    """Tokens and latents: one token per latent."""
    config = pipe.transformer.config
    return Layout(
        sizes={SOUND: (config.sample_size,)},
        latents={"latent_channel": config.in_channels, "latent_token": config.sample_size},
        pixel_multiple=1,
        prediction=("v",),
    )


def text_states(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The text tokens, zero for an empty text, and the duration's two: (batch, token, channel)."""
    states = pipe.encode_prompt(texts, pipe._execution_device, False)
    start, end = pipe.encode_duration(0.0, seconds(pipe), pipe._execution_device, False, len(texts))
    return {"encoder_hidden_states": torch.cat([states, start, end], dim=1)}


def unconditional(pipe: Any, negative_prompt: str, settings: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Zeros, as in the pipeline, or a negative prompt."""
    found = text_states(pipe, [negative_prompt], settings)
    return found if negative_prompt else {name: value * 0 for name, value in found.items()}


def no_pictures(pipe: Any, latents: torch.Tensor) -> NoReturn:
    """Raise an error for lenses, and for pictures as sources."""
    raise ModelError("StableAudioPipeline generates sound: its latents cannot be decoded to pictures, nor pictures encoded")


PIPELINE = PipelineSpec(
    pipeline_class="StableAudioPipeline",
    layout=layout,
    guidance_off={"guidance_scale": 1.0},
    default_size=default_size,
    takes_size=False,
    tokenizers={"tokenizer": None},
    text_states=text_states,
    unconditional=unconditional,
    to_autoencoder=no_pictures,
    from_autoencoder=no_pictures,
)
FAMILY = ModelFamily("stableaudio", "StableAudioDiTModel", describe, (PIPELINE,), OwnGuidance("uncond first"))
