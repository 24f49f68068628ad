"""FLUX.2 (`Flux2Transformer2DModel`, `Flux2KleinPipeline`), as in diffusers 0.42.

AdaLN is projected once for all double blocks (a projection per stream) and once for all single ones. Blocks receive it as
arguments, so alpha is the same in every block of a kind. Text does not enter it. Double blocks return (text, image). Single
ones take and return one state, text first. `temb` enters again in `norm_out`. The transformer receives the timestep divided by
1000.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Modulation, Norm, Reentry, Tap, given_chunks
from interp.models.families.described import ModelFamily
from interp.models.families.flux import ADALN_ZERO_SINGLE, HIDDEN, JOINED, STATES
from interp.models.families.pipeline import Layout, OwnGuidance, PipelineSpec, no_conditions
from interp.models.families.sd3 import ADALN_ZERO, mlp_taps

if TYPE_CHECKING:
    from torch import Tensor

MODULATIONS = {"temb_mod_img": "double_stream_modulation_img", "temb_mod_txt": "double_stream_modulation_txt"}


def given(stream: str, argument: str, chunks: tuple[str, ...], shared_with: tuple[str, ...] = ()) -> Modulation:
    """AdaLN values that a block receives as an argument."""
    return Modulation(stream, None, chunks, partial(given_chunks, argument), shared_with, argument=argument)


def double_block(path: str) -> Block:
    """A double block: two streams with joint attention."""
    return Block(
        path=path,
        kind="double",
        hidden=HIDDEN,
        reads=(
            given("image", "temb_mod_img", ADALN_ZERO),
            given("text", "temb_mod_txt", ADALN_ZERO),
            Tap("image", "modulated", "attn", "attn", "input"),
            Tap("text", "modulated", "attn", "attn", "input", argument="encoder_hidden_states"),
            Tap("image", "branch", "attn", "attn", item=0),
            Tap("text", "branch", "attn", "attn", item=1),
            *mlp_taps("image", "norm2", "ff"),
            *mlp_taps("text", "norm2_context", "ff_context"),
        ),
        row_inputs=("hidden_states", "encoder_hidden_states", "temb_mod_img", "temb_mod_txt"),
        state_inputs=STATES,
        norms=(Norm("norm1"), Norm("norm1_context", ("text",)), Norm("norm2"), Norm("norm2_context", ("text",))),
        attention=("attn.to_v", "attn.to_out.0"),
    )


def single_block(path: str) -> Block:
    """A single block: both streams joined, attention and MLP in parallel with one gate."""
    return Block(
        path=path,
        kind="single",
        hidden=dict.fromkeys(JOINED),
        reads=(
            given("image", "temb_mod", ADALN_ZERO_SINGLE, shared_with=("text",)),
            *(Tap(stream, "modulated", "attn", "attn", "input", joint=JOINED) for stream in STATES),
            *(Tap(stream, "branch", "attn", "attn", joint=JOINED) for stream in STATES),
        ),
        row_inputs=("hidden_states", "temb_mod"),
        state_inputs=dict.fromkeys(JOINED, "hidden_states"),
        norms=(Norm("norm", JOINED),),
        joint=JOINED,
    )


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN arguments, as the transformer's forward computes them (inputs times 1000)."""
    timestep, guidance = (
        inputs[name].to(transformer.dtype) * 1000 if name in inputs else None for name in ("timestep", "guidance")
    )
    temb = transformer.time_guidance_embed(timestep, guidance)
    found = {argument: transformer.get_submodule(module)(temb) for argument, module in MODULATIONS.items()}
    return {**found, "temb_mod": transformer.single_stream_modulation(temb)}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `Flux2Transformer2DModel`: blocks are numbered consecutively, double blocks first."""
    doubles = [double_block(f"transformer_blocks.{index}") for index in range(len(transformer.transformer_blocks))]
    singles = [
        single_block(f"single_transformer_blocks.{index}") for index in range(len(transformer.single_transformer_blocks))
    ]
    guided = ("guidance",) if transformer.config.guidance_embeds else ()
    return Anatomy(
        family="flux2",
        model_class="Flux2Transformer2DModel",
        channels=transformer.inner_dim,
        blocks=(*doubles, *singles),
        row_inputs=("hidden_states", "encoder_hidden_states", "timestep", *guided),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        timestep_scale=1000.0,
        conditioning=Conditioning({"timestep": "timestep", **{name: name for name in guided}}, block_conditioning),
        last_norm=Norm("norm_out.norm"),
    )


def layout(pipe: Any, height: int, width: int, settings: Mapping[str, Any]) -> Layout:
    """Tokens and latents of a picture of height x width pixels: latents are packed, two by two, into tokens."""
    multiple = 2 * pipe.vae_scale_factor
    rows, columns = height // multiple, width // multiple
    return Layout(
        image_grid=(rows, columns),
        text_tokens=settings["max_sequence_length"],
        latents={"latent_token": rows * columns, "latent_channel": pipe.transformer.config.in_channels},
        pixel_multiple=multiple,
    )


def text_states(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The text tokens, (batch, token, channel)."""
    return {"encoder_hidden_states": pipe.encode_prompt(texts, max_sequence_length=settings["max_sequence_length"])[0]}


def unpack(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Tokens to (row, four channels in one, y, x)."""
    multiple = 2 * pipe.vae_scale_factor
    return latents.transpose(1, 2).reshape(len(latents), -1, height // multiple, width // multiple)


def normalisation(pipe: Any, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the autoencoder's latents."""
    norm = pipe.vae.bn
    deviation = (norm.running_var + pipe.vae.config.batch_norm_eps).sqrt()
    mean, wide = (value.view(1, -1, 1, 1).to(latents.device, latents.dtype) for value in (norm.running_mean, deviation))
    return mean, wide


def to_autoencoder(pipe: Any, latents: Tensor) -> Tensor:
    """Denormalise and unpack latents for the autoencoder."""
    mean, deviation = normalisation(pipe, latents)
    found: Tensor = pipe._unpatchify_latents(latents * deviation + mean)
    return found


def from_autoencoder(pipe: Any, latents: Tensor) -> Tensor:
    """The inverse."""
    patches: Tensor = pipe._patchify_latents(latents)
    mean, deviation = normalisation(pipe, patches)
    return (patches - mean) / deviation


def shift(config: Any, tokens: int, steps: int) -> float:
    """The pipeline's own empirical shift of its noise levels."""
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    return float(compute_empirical_mu(tokens, steps))


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The scale of classifier-free guidance; `None` for distilled weights."""
    distilled = given["self"].config.is_distilled
    return given["guidance_scale"] if given["guidance_scale"] > 1 and not distilled else None


OWN_GUIDANCE = OwnGuidance("calls", own_scale)
PIPELINE = PipelineSpec(
    pipeline_class="Flux2KleinPipeline",
    layout=layout,
    guidance_off={"guidance_scale": 1.0},
    settings=lambda pipe: {"max_sequence_length": 512},
    tokenizers={"tokenizer": "max_sequence_length"},
    settings_maximum={"max_sequence_length": 512},
    conditions=no_conditions,
    text_states=text_states,
    unconditional=lambda pipe, negative, settings: text_states(pipe, [negative], settings),
    unpack=unpack,
    pack=lambda pipe, latents: latents.flatten(2).transpose(1, 2),
    to_autoencoder=to_autoencoder,
    from_autoencoder=from_autoencoder,
    sigmas=lambda steps: np.linspace(1.0, 1 / steps, steps),
    shift=shift,
)
FAMILY = ModelFamily("flux2", "Flux2Transformer2DModel", describe, (PIPELINE,), OWN_GUIDANCE)
