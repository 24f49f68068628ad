"""Bria FIBO (`BriaFiboTransformer2DModel`, `BriaFiboPipeline`), as in diffusers 0.42.

Double blocks return (text, image); single ones take and return one state, text first. Their norms project the gates from the
timestep alone, which enters again in `norm_out`. Before every block, half of the text's channels are replaced by a projection
of another layer of the text encoder. So a text state is not that of the block before, and text is no stream here. The layers of
the text encoder are an argument of the transformer, a list with one for each block.

The text is as long as the longest prompt of its call. Padding is masked, by an argument that a call without padding lacks; no
argument of the pipeline sets the length. So calls have one row here, and text has a prompt's own length.

Prompts are meant to be structured captions, as JSON; any text is accepted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from interp.models.anatomy import Anatomy, Block, Conditioning, Form, Inputs, Lengths, Norm, Reentry, Tap
from interp.models.families.blocks import ADALN_SINGLE, image_stream, mlp_taps, numbered, projected
from interp.models.families.calls import Settings, denormalise, falling, normalise, text_pipeline
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance
from interp.models.families.schedules import Levels
from interp.models.families.uncounted import IMAGE_LAST, LastBlock
from interp.models.lazy import torch

LONGEST = 3000


@dataclasses.dataclass(frozen=True)
class BesideText(Block):
    """A block that returns (text, image), of which only the image is a stream."""

    def output_of(self, states: Mapping[str, torch.Tensor], inputs: Inputs, lengths: Lengths) -> Any:
        """An output of the block that holds this state beside the text of its inputs."""
        return self.with_states((inputs["encoder_hidden_states"], None), states, lengths)


DOUBLE = BesideText(
    path="",
    kind="double",
    hidden={"image": 1},
    reads=(
        projected("image", "norm1"),
        Tap("image", "modulated", "attn", "norm1", item=0),
        Tap("image", "branch", "attn", "attn", item=0),
        *mlp_taps("image", "norm2", "ff"),
    ),
    row_inputs=("hidden_states", "encoder_hidden_states", "temb"),
    state_inputs={"image": "hidden_states"},
    norms=(Norm("norm1.norm"), Norm("norm2")),
    attention=("attn.to_v", "attn.to_out.0"),
)
SINGLE = LastBlock(
    path="",
    kind="single",
    hidden={"image": None},
    reads=(
        projected("image", "norm", ADALN_SINGLE),
        Tap("image", "modulated", "attn", "norm", item=0, joint=IMAGE_LAST),
        Tap("image", "branch", "attn", "proj_out", joint=IMAGE_LAST),
    ),
    row_inputs=("hidden_states", "temb"),
    state_inputs={"image": "hidden_states"},
    norms=(Norm("norm.norm", IMAGE_LAST),),
    joint=("image",),
)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it; `hidden_states` gives only the dtype."""
    dtype = transformer.dtype
    temb = transformer.time_embed(inputs["timestep"].to(dtype), dtype=dtype)
    return {"temb": temb, "hidden_states": torch.empty(0, dtype=dtype)}


def after_text(given: Inputs) -> Inputs:
    """The places of the text's tokens: all of them 0."""
    text = given["encoder_hidden_states"]
    return {"txt_ids": text.new_zeros(text.shape[1], 3)}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `BriaFiboTransformer2DModel`: blocks are numbered consecutively, double blocks first."""
    text = ("encoder_hidden_states", "text_encoder_layers", "joint_attention_kwargs")
    return Anatomy(
        family="fibo",
        model_class="BriaFiboTransformer2DModel",
        streams=(image_stream(transformer.inner_dim),),
        blocks=numbered(transformer, transformer_blocks=DOUBLE, single_transformer_blocks=SINGLE),
        row_inputs=("hidden_states", *text, "timestep"),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        forms={
            "encoder_hidden_states": Form(ragged=True, masked=False),
            "text_encoder_layers": Form(stacked=True, ragged=True, masked=False),
        },
        after_text=after_text,
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning),
        last_norm=Norm("norm_out.norm"),
        lengths=lambda given: {"image": given["hidden_states"].shape[1]},
        forks=False,
    )


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture of height x width pixels: a token is a latent."""
    rows, columns = height // pipe.vae_scale_factor, width // pipe.vae_scale_factor
    return Layout(
        sizes={"image": (rows, columns)},
        latents={"latent_token": rows * columns, "latent_channel": pipe.transformer.config.in_channels},
        pixel_multiple=pipe.vae_scale_factor,
    )


def encode(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """The text tokens of prompts, (batch, token, channel), and those of each block, (batch, block, token, channel): the text
    encoder's last layers, the last one repeated.
    """
    found = pipe.encode_prompt(texts, guidance_scale=1.0, max_sequence_length=settings["max_sequence_length"])
    config, layers = pipe.transformer.config, found[5]
    blocks = config.num_layers + config.num_single_layers
    layers = [*layers, *[layers[-1]] * (blocks - len(layers))][-blocks:]
    return {"encoder_hidden_states": found[0], "text_encoder_layers": torch.stack(layers, dim=1)}


PIPELINE = text_pipeline(
    "BriaFiboPipeline",
    layout,
    encode,
    LONGEST,
    longest=LONGEST,
    examples=("a red circle", "a blue square"),
    unpack=lambda pipe, latents, *size: pipe._unpack_latents_no_patch(latents, *size, pipe.vae_scale_factor)[:, :, None],
    pack=lambda pipe, latents: latents.flatten(2).transpose(1, 2),
    to_autoencoder=denormalise,
    from_autoencoder=normalise,
    moving=True,
    levels=Levels(falling),
)
FAMILY = ModelFamily("fibo", "BriaFiboTransformer2DModel", describe, (PIPELINE,), OwnGuidance("uncond first"))
