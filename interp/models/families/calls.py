"""Parts of a pipeline's description that several families share: encoders of prompts, layouts, packing, normalisation."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from interp.base.errors import InputError
from interp.models.families.pipeline import Layout, PipelineSpec
from interp.models.lazy import torch

Settings = Mapping[str, Any]
"""Further arguments of a pipeline that its weights use."""
Encode = Callable[[Any, list[str], Settings], dict[str, Any]]
"""(pipe, texts, settings) -> arguments of the transformer."""
OwnTokens = Callable[[Any, list[str], Settings], np.ndarray[Any, Any]]
"""(pipe, texts, settings) -> (text, token) boolean."""


def encoder(further: Callable[[Any], dict[str, Any]] = lambda pipe: {}, /, **items: int) -> Encode:
    """Encode prompts with the pipeline's `encode_prompt`: per argument of the transformer, the item of its output; `further`
    gives more of its arguments.

    Text tokens are (batch, token, channel), their mask (batch, token), pooled text (batch, channel).
    """

    def encode(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
        given: dict[str, Any] = {"max_sequence_length": settings["max_sequence_length"], **further(pipe)}
        if "do_classifier_free_guidance" in inspect.signature(pipe.encode_prompt).parameters:
            given["do_classifier_free_guidance"] = False
        found = pipe.encode_prompt(texts, **given)
        return {name: found[item] for name, item in items.items()}

    return encode


def own_tokens(*parts: tuple[str, str | None]) -> OwnTokens:
    """Which tokens of the text stream are a prompt's own and not padding: those of these tokenizers, in the stream's order,
    each with the setting that limits its length (`None`: its own limit). Tokens of the stream before them are the model's own.
    """

    def mask(pipe: Any, texts: list[str], settings: Settings) -> np.ndarray[Any, Any]:
        found = []
        for name, setting in parts:
            tokenizer = getattr(pipe, name)
            length = settings[setting] if setting else tokenizer.model_max_length
            found.append(np.zeros((len(texts), length), bool) if tokenizer is None else attended(tokenizer, texts, length))
        return np.concatenate(found, axis=1)

    return mask


def attended(tokenizer: Any, texts: list[str], length: int) -> np.ndarray[Any, Any]:
    """The tokenizer's mask of texts padded to a length, (text, token) boolean."""
    given = tokenizer(texts, padding="max_length", truncation=True, max_length=length)
    return np.array(given.attention_mask, bool)


def unmasked(encode: Encode, name: str) -> OwnTokens:
    """The same from the mask that the transformer receives."""

    def mask(pipe: Any, texts: list[str], settings: Settings) -> np.ndarray[Any, Any]:
        with torch.no_grad():
            return np.asarray(encode(pipe, texts, settings)[name].bool().cpu())

    return mask


def text_pipeline(
    pipeline_class: str,
    layout: Callable[[Any, int, int, Settings], Layout],
    encode: Encode,
    length: int = 512,
    *,
    longest: int = 512,
    gates: Sequence[str] = (),
    **further: Any,
) -> PipelineSpec:
    """A pipeline that takes text: by default `length` tokens of a prompt, and `longest` at most.

    `gates` names the encoded arguments that enter the gates. `further` gives other fields, or replaces the usual ones.
    """

    def encoded(pipe: Any, texts: list[str], settings: Settings, *, entering: bool) -> dict[str, Any]:
        return {name: value for name, value in encode(pipe, texts, settings).items() if (name in gates) == entering}

    usual: dict[str, Any] = {
        "guidance_off": {"guidance_scale": 1.0},
        "settings": lambda pipe: {"max_sequence_length": length},
        "tokenizers": {"tokenizer": "max_sequence_length"},
        "settings_maximum": {"max_sequence_length": longest},
        "conditions": partial(encoded, entering=True) if gates else lambda pipe, texts, settings: {},
        "text_states": partial(encoded, entering=False),
        "unconditional": lambda pipe, negative, settings: encode(pipe, [negative], settings),
    }
    return PipelineSpec(pipeline_class, layout, **{**usual, **further})


def patch_layout(
    pipe: Any, height: int, width: int, text_tokens: int = 0, *, scale: int = 0, least: int = 1, **further: Any
) -> Layout:
    """Tokens and latents of a picture whose tokens are patches of latents.

    A latent is `scale` pixels wide, by default the pipeline's `vae_scale_factor`; sizes are multiples of `least` pixels.
    """
    config, scale = pipe.transformer.config, scale or pipe.vae_scale_factor
    patch = config.patch_size
    of_y, of_x = (patch, patch) if isinstance(patch, int) else patch[-2:]
    rows, columns = height // scale, width // scale
    return Layout(
        sizes={"image": (rows // of_y, columns // of_x), **({"text": (text_tokens,)} if text_tokens else {})},
        latents={"latent_channel": config.in_channels, "latent_y": rows, "latent_x": columns},
        pixel_multiple=math.lcm(least, scale * of_y, scale * of_x),
        **further,
    )


def check_frames(frames: int, every: int) -> None:
    """Raise an error unless `frames` is 1 plus a multiple of `every`, as the autoencoder requires."""
    if (frames - 1) % every:
        near = frames // every * every + 1
        raise InputError(f"num_frames must be 1 plus a multiple of {every}; got {frames} (try {near})")


def video_layout(still: Layout, frames: int, every: int, of_time: int = 1) -> Layout:
    """Tokens and latents of a video of pictures like `still`: one latent for `every` frames after the first, `of_time` latents
    in a token.
    """
    check_frames(frames, every)
    latent_frames = (frames - 1) // every + 1
    channel, *place = still.latents.items()
    latents = dict([channel, ("latent_frame", latent_frames), *place])
    sizes = {**still.sizes, "image": (latent_frames // of_time, *still.sizes["image"])}
    return dataclasses.replace(still, latents=latents, sizes=sizes, frames=frames)


def epsilon_and_sigma(transformer: Any) -> tuple[str, ...]:
    """The parts of a prediction of the noise: weights with twice as many channels also predict sigma."""
    learned = transformer.config.out_channels == 2 * transformer.config.in_channels
    return ("epsilon", "sigma") if learned else ("epsilon",)


def packed_layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture whose latents are packed, two by two, into tokens."""
    multiple = 2 * pipe.vae_scale_factor
    rows, columns = height // multiple, width // multiple
    return Layout(
        sizes={"image": (rows, columns), "text": (settings["max_sequence_length"],)},
        latents={"latent_token": rows * columns, "latent_channel": pipe.transformer.config.in_channels},
        pixel_multiple=multiple,
    )


def unpack(pipe: Any, latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Packed tokens to (row, channel, y, x)."""
    spatial: torch.Tensor = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
    return spatial


def pack(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    """(row, channel, y, x) to tokens of two by two."""
    packed: torch.Tensor = pipe._pack_latents(latents, *latents.shape)
    return packed


def _statistics(pipe: Any, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    config = pipe.vae.config
    mean, deviation = (
        torch.tensor(values).view(1, -1, 1, 1, 1).to(latents.device, latents.dtype)
        for values in (config.latents_mean, config.latents_std)
    )
    return mean, deviation / getattr(config, "scaling_factor", 1.0)


def denormalise(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents (row, channel, frame, y, x) for an autoencoder whose config gives each channel's mean and deviation."""
    mean, deviation = _statistics(pipe, latents)
    return latents * deviation + mean


def normalise(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    """The inverse of `denormalise`."""
    mean, deviation = _statistics(pipe, latents)
    return (latents - mean) / deviation


def falling(steps: int) -> np.ndarray[Any, Any]:
    """Noise levels from 1 to 1 / steps, evenly spaced."""
    return np.linspace(1.0, 1 / steps, steps)


def falling_to_zero(steps: int) -> np.ndarray[Any, Any]:
    """Noise levels from 1 to 0, evenly spaced, without the last: `falling` up to rounding, as other pipelines compute it."""
    return np.linspace(1.0, 0.0, steps + 1)[:-1]


def config_size(pipe: Any) -> tuple[int, int]:
    """The height and width in the weights' config, pixels."""
    side = pipe.transformer.config.sample_size * pipe.vae_scale_factor
    return side, side
