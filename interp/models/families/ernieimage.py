"""ERNIE-Image (`ErnieImageTransformer2DModel`, `ErnieImagePipeline`), as in diffusers 0.42.

Blocks take and return one state of image and text, image first, with tokens before the batch: (token, batch, channel). One
projection of the timestep, outside of the blocks, gives all of them the same shifts, scales and gates. Text does not enter the
gates. The timestep enters again in `final_norm`. Norms in the blocks are RMS norms.

A call's text is as long as its longest prompt. The transformer masks what follows a row's own tokens, and no argument of the
pipeline sets the length. So the number of text tokens depends on the other rows: text is no stream here, and edits leave it.
An image token's position depends on the length of its row's prompt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

from interp.models.anatomy import Anatomy, Block, Conditioning, Form, Inputs, Lengths, Modulation, Reentry, Tap
from interp.models.families.blocks import ADALN_ZERO, image_stream, numbered
from interp.models.families.calls import Settings, falling_to_zero, patch_layout, text_pipeline
from interp.models.families.flux2 import from_autoencoder, to_autoencoder
from interp.models.families.pipeline import ModelFamily, OwnGuidance
from interp.models.families.schedules import Levels
from interp.models.hook_points import REST
from interp.models.lazy import torch

HELD = ("image", REST)
EPSILON = 1e-5  # in the pipeline's code, in place of the autoencoder's config


@dataclasses.dataclass(frozen=True)
class TokensFirst(Block):
    """A block whose state is (token, batch, channel)."""

    def with_states(self, output: Any, states: Mapping[str, torch.Tensor], lengths: Lengths) -> Any:
        """The block's output with the stream's state replaced."""
        return super().with_states(None if output is None else output.transpose(0, 1), states, lengths).transpose(0, 1)

    def with_rows(self, output: Any, rows: Any) -> Any:
        """The block's output with its rows indexed by `rows`."""
        return output[:, rows]

    def _cut(self, state: torch.Tensor, stream: str, lengths: Lengths) -> torch.Tensor:
        return super()._cut(state.transpose(0, 1), stream, lengths)


@dataclasses.dataclass(frozen=True)
class TokensFirstTap(Tap):
    """A place that holds (token, batch, channel)."""

    def take(self, value: Any, lengths: Lengths) -> torch.Tensor:
        """The stream's tokens, (batch, token, channel)."""
        return super().take(value.transpose(0, 1), lengths)


@dataclasses.dataclass(frozen=True)
class Listed(Modulation):
    """AdaLN values that a block receives as a list, each repeated for every token: (token, batch, channel)."""

    def write(self, block: Any, inputs: Inputs, before: torch.Tensor, after: torch.Tensor) -> dict[str, Any]:
        """The block's inputs with a list that makes the block use `after`."""
        old = inputs[str(self.argument)]
        new = [part.expand(old[0].shape[0], *part.shape) for part in after.chunk(len(old), dim=-1)]
        return {**inputs, str(self.argument): new}


def listed(argument: str, block: Any, inputs: Inputs) -> torch.Tensor:
    """The values of a `Listed`, (batch, chunk * channel)."""
    return torch.cat([part[0] for part in inputs[argument]], dim=-1)


BLOCK = TokensFirst(
    path="",
    kind="single",
    hidden={"image": None},
    reads=(
        Listed("image", None, ADALN_ZERO, partial(listed, "temb"), argument="temb"),
        Tap("image", "modulated", "attn", "self_attention", "input", joint=HELD),
        Tap("image", "branch", "attn", "self_attention", joint=HELD),
        TokensFirstTap("image", "mid", None, "adaLN_mlp_ln", "input", joint=HELD),
        TokensFirstTap("image", "modulated", "mlp", "mlp", "input", joint=HELD),
        TokensFirstTap("image", "branch", "mlp", "mlp", joint=HELD),
    ),
    row_inputs=("x", "rotary_pos_emb", "attention_mask"),
    state_inputs={"image": "x"},
    attention=("self_attention.to_v", "self_attention.to_out.0"),
    joint=("image",),
    followed=True,
)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN values as the transformer's forward computes them, for one token."""
    embedded = transformer.time_embedding(transformer.time_proj(inputs["timestep"]).to(transformer.dtype))
    return {"temb": [part[None] for part in transformer.adaLN_modulation(embedded).chunk(len(ADALN_ZERO), dim=-1)]}


def image_tokens(patch: int, given: Inputs) -> Lengths:
    """Tokens of the image, from the transformer's arguments."""
    height, width = given["hidden_states"].shape[-2:]
    return {"image": (height // patch) * (width // patch), "text": 0}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of an `ErnieImageTransformer2DModel`."""
    return Anatomy(
        family="ernieimage",
        model_class="ErnieImageTransformer2DModel",
        streams=(image_stream(transformer.config.hidden_size),),
        blocks=numbered(transformer, layers=BLOCK),
        row_inputs=("hidden_states", "timestep", "text_bth", "text_lens"),
        reentries=(Reentry("final_norm", "conditioning"),),
        forms={"text_bth": Form(ragged=True)},
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning),
        lengths=partial(image_tokens, transformer.config.patch_size),
        forks=False,
    )


def encode(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """The text tokens of prompts, (batch, token, channel), and how many are a prompt's own."""
    device, dtype, width = pipe._execution_device, pipe.transformer.dtype, pipe.transformer.config.text_in_dim
    found = pipe._pad_text(pipe.encode_prompt(texts, device), device, dtype, width)
    return dict(zip(("text_bth", "text_lens"), found, strict=True))


PIPELINE = text_pipeline(
    "ErnieImagePipeline",
    lambda pipe, height, width, settings: patch_layout(pipe, height, width),
    encode,
    guidance_off={"guidance_scale": 1.0, "use_pe": False},
    default_size=lambda pipe: (1024, 1024),
    settings=lambda pipe: {},
    settings_maximum={},
    tokenizers={"tokenizer": None},
    to_autoencoder=partial(to_autoencoder, epsilon=EPSILON),
    from_autoencoder=partial(from_autoencoder, epsilon=EPSILON),
    levels=Levels(falling_to_zero),
)
FAMILY = ModelFamily("ernieimage", "ErnieImageTransformer2DModel", describe, (PIPELINE,), OwnGuidance("uncond first"))
