"""Ideogram 4 (`Ideogram4Transformer2DModel`, `Ideogram4Pipeline`), as in diffusers 0.42: one joint state, text first.

The text is padded at its left to the longest length, and padding attends to itself alone. Both streams have the same gates,
tanh of an AdaLN projection without shifts. A norm with weights follows each branch's module; the gate multiplies its output.
The blocks' norms are RMS norms, so none is listed as a LayerNorm. Text does not enter the gates.

The transformer receives zeros in the place of the text's latents, and its output begins with the text's tokens. Noise levels
depend on the picture's size. Another transformer is the unconditional branch of the pipeline's guidance, so there is no
classifier-free guidance here; the pipeline calls it even with guidance off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp.base.errors import InputError
from interp.models.anatomy import Anatomy, Conditioning, Inputs, Lengths, Modulation, Norm, Reentry, Tap, Timestep
from interp.models.families.blocks import TEXT_FIRST, image_stream, mlp_taps, numbered, single_block, text_stream
from interp.models.families.calls import Settings, packed_layout, text_pipeline, unmasked
from interp.models.families.flux2 import normalisation, unpack
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance, guidance_scale
from interp.models.families.schedules import Levels
from interp.models.lazy import torch

TEXTS = ("encoder_hidden_states", "position_ids", "segment_ids", "indicator")
IMAGE_INDICATOR, TEXT_INDICATOR = 2, 3


@dataclasses.dataclass(frozen=True)
class OfOneToken(Modulation):
    """AdaLN values that a module computes with an axis of one token, (batch, 1, chunk * channel)."""

    def split(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Each chunk, (batch, channel), as the block uses it."""
        return super().split(values.flatten(1))

    def join(self, values: torch.Tensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The inverse."""
        return super().join(values.flatten(1), parts).unsqueeze(1)


MODULATION = OfOneToken(
    "image",
    "adaln_modulation",
    ("scale.attn", "alpha.attn", "scale.mlp", "alpha.mlp"),
    lambda block, inputs: block.get_submodule("adaln_modulation")(inputs["adaln_input"]),
    tanh=True,
)
TAPS = (
    Tap("image", "modulated", "attn", "attention", "input"),
    Tap("image", "branch", "attn", "attention_norm2"),
    *mlp_taps("image", "ffn_norm1", "feed_forward")[:2],
    Tap("image", "branch", "mlp", "ffn_norm2"),
)
JOINT = single_block(MODULATION, TAPS, rows=("hidden_states", "attention_mask", "adaln_input"), norms=())


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN argument, (batch, 1, channel), as the transformer's forward computes it."""
    embedded = transformer.t_embedding(inputs["timestep"].to(transformer.dtype)).unsqueeze(1)
    return {"adaln_input": torch.nn.functional.silu(transformer.adaln_proj(embedded))}


def lengths(given: Inputs) -> Lengths:
    """The text's tokens: those before the image's, padding among them."""
    return {"text": int((given["indicator"][0] != IMAGE_INDICATOR).sum())}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of an `Ideogram4Transformer2DModel`."""
    return Anatomy(
        family="ideogram4",
        model_class="Ideogram4Transformer2DModel",
        streams=(image_stream(transformer.hidden_size), text_stream(transformer.hidden_size)),
        blocks=numbered(transformer, layers=JOINT),
        row_inputs=("hidden_states", "timestep", *TEXTS),
        reentries=(Reentry("final_layer", "conditioning"),),
        timestep=Timestep(scale=1000.0, rises=True),
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning),
        last_norm=Norm("final_layer.norm_final", TEXT_FIRST),
        lengths=lengths,
        forks=False,
    )


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture of height x width pixels; the text's tokens lie before them."""
    found = packed_layout(pipe, height, width, settings)
    return dataclasses.replace(found, leading=found.tokens("text"), prediction=("minus_velocity",))


def levels(pipe: Any, tokens: int, steps: int) -> np.ndarray[Any, Any]:
    """The noise levels of a picture with so many tokens, at the pipeline's default mean and deviation."""
    from diffusers.pipelines.ideogram4 import pipeline_ideogram4 as source

    mean = source._resolution_aware_mu(tokens, (2 * pipe.vae_scale_factor) ** 2, 0.0)
    return np.asarray(source._logit_normal_sigmas(steps, mean, std=1.5), np.float64)


def encode(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """The text tokens of the arguments that hold text and image; all depend on the text's length."""
    length = settings["max_sequence_length"]
    found = pipe.encode_prompt(texts, 1, 1, length, pipe._execution_device)
    return {name: value[:, :length] for name, value in zip(TEXTS, found, strict=True)}


def own_tokens(pipe: Any, texts: list[str], settings: Settings) -> np.ndarray[Any, Any]:
    """The tokens of a prompt and its chat template, (text, token)."""
    return unmasked(lambda *given: {"mask": encode(*given)["indicator"] == TEXT_INDICATOR}, "mask")(pipe, texts, settings)


def to_autoencoder(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    """Denormalise and unpack latents for the autoencoder; a token's channels hold (y, x, channel)."""
    mean, deviation = normalisation(pipe, latents)
    rows, _, height, width = latents.shape
    parts = (latents * deviation + mean).reshape(rows, 2, 2, -1, height, width)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(rows, -1, 2 * height, 2 * width)


def from_autoencoder(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    """The inverse."""
    rows, channels, height, width = latents.shape
    parts = latents.reshape(rows, channels, height // 2, 2, width // 2, 2).permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
    mean, deviation = normalisation(pipe, parts)
    return (parts - mean) / deviation


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The pipeline's scale, or an error where each step has its own."""
    if given["guidance_schedule"] is not None:
        raise InputError("guided: give Ideogram4Pipeline guidance_scale=..., the same in all steps, and guidance_schedule=None")
    return guidance_scale(given)


PIPELINE = text_pipeline(
    "Ideogram4Pipeline",
    layout,
    encode,
    2048,
    longest=2048,
    guidance_off={"guidance_scale": 1.0, "guidance_schedule": None},
    default_size=lambda pipe: (2048, 2048),
    own_tokens=own_tokens,
    unconditional=None,
    unpack=unpack,
    pack=lambda pipe, latents: latents.flatten(2).transpose(1, 2),
    to_autoencoder=to_autoencoder,
    from_autoencoder=from_autoencoder,
    levels=Levels(sized=levels),
)
FAMILY = ModelFamily("ideogram4", "Ideogram4Transformer2DModel", describe, (PIPELINE,), OwnGuidance("calls", own_scale))
