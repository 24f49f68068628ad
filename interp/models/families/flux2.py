"""FLUX.2 (`Flux2Transformer2DModel`; `Flux2KleinPipeline` and, for dev, `Flux2Pipeline`), as in diffusers 0.42.

AdaLN is projected once for all double blocks (a projection per stream) and once for all single ones. Blocks receive it as
arguments, so alpha is the same in every block of a kind. Text does not enter it. Double blocks return (text, image). Single
ones take and return one state, text first. `temb` enters again in `norm_out`. The transformer receives the timestep divided by
1000.

The dev weights also embed a guidance, which enters the gates. Their pipeline has no classifier-free guidance, and encodes the
prompt after a system message, with a Mistral model and its processor of texts and pictures, named `tokenizer`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from interp.models.anatomy import Anatomy, Conditioning, Inputs, Norm, Reentry, Tap, Timestep
from interp.models.families.blocks import (
    ADALN_SINGLE,
    ATTENTION_INPUTS,
    double_block,
    given,
    image_stream,
    numbered,
    single_block,
    text_stream,
)
from interp.models.families.calls import Settings, attended, encoder, falling, packed_layout, text_pipeline
from interp.models.families.pipeline import ModelFamily, OwnGuidance, guidance_scale
from interp.models.families.schedules import Levels
from interp.models.lazy import torch

MODULATIONS = {
    "temb_mod_img": "double_stream_modulation_img",
    "temb_mod_txt": "double_stream_modulation_txt",
    "temb_mod": "single_stream_modulation",
}
DOUBLE = double_block(
    (given("temb_mod_img"), given("temb_mod_txt", stream="text"), *ATTENTION_INPUTS),
    rows=("hidden_states", "encoder_hidden_states", "temb_mod_img", "temb_mod_txt"),
    norms=(Norm("norm1"), Norm("norm1_context", ("text",)), Norm("norm2"), Norm("norm2_context", ("text",))),
)
SINGLE = single_block(
    given("temb_mod", ADALN_SINGLE),
    (Tap("image", "modulated", "attn", "attn", "input"), Tap("image", "branch", "attn", "attn")),
    rows=("hidden_states", "temb_mod"),
    norms=("norm",),
)
encode = encoder(encoder_hidden_states=0)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN arguments, as the transformer's forward computes them (inputs times 1000)."""
    scaled = {name: value.to(transformer.dtype) * 1000 for name, value in inputs.items() if name in ("timestep", "guidance")}
    temb = transformer.time_guidance_embed(scaled["timestep"], scaled.get("guidance"))
    return {argument: transformer.get_submodule(module)(temb) for argument, module in MODULATIONS.items()}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `Flux2Transformer2DModel`: blocks are numbered consecutively, double blocks first."""
    guided = ("guidance",) if transformer.config.guidance_embeds else ()
    return Anatomy(
        family="flux2",
        model_class="Flux2Transformer2DModel",
        streams=(image_stream(transformer.inner_dim), text_stream(transformer.inner_dim)),
        blocks=numbered(transformer, transformer_blocks=DOUBLE, single_transformer_blocks=SINGLE),
        row_inputs=("hidden_states", "encoder_hidden_states", "timestep", *guided),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        timestep=Timestep(scale=1000.0),
        conditioning=Conditioning({"timestep": "timestep", **{name: name for name in guided}}, block_conditioning),
        last_norm=Norm("norm_out.norm"),
    )


def unpack(pipe: Any, latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Tokens to (row, four channels in one, y, x)."""
    multiple = 2 * pipe.vae_scale_factor
    return latents.transpose(1, 2).reshape(len(latents), -1, height // multiple, width // multiple)


def normalisation(pipe: Any, latents: torch.Tensor, epsilon: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of the autoencoder's latents; its variances are raised by `epsilon`, by default its config's."""
    norm = pipe.vae.bn
    deviation = (norm.running_var + (epsilon or pipe.vae.config.batch_norm_eps)).sqrt()
    mean, wide = (value.view(1, -1, 1, 1).to(latents.device, latents.dtype) for value in (norm.running_mean, deviation))
    return mean, wide


def to_autoencoder(pipe: Any, latents: torch.Tensor, epsilon: float | None = None) -> torch.Tensor:
    """Denormalise and unpack latents for the autoencoder."""
    mean, deviation = normalisation(pipe, latents, epsilon)
    found: torch.Tensor = pipe._unpatchify_latents(latents * deviation + mean)
    return found


def from_autoencoder(pipe: Any, latents: torch.Tensor, epsilon: float | None = None) -> torch.Tensor:
    """The inverse."""
    patches: torch.Tensor = pipe._patchify_latents(latents)
    mean, deviation = normalisation(pipe, patches, epsilon)
    return (patches - mean) / deviation


def shift(pipe: Any, tokens: int, steps: int) -> float:
    """The pipeline's own empirical shift of its noise levels."""
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    return float(compute_empirical_mu(tokens, steps))


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The scale of classifier-free guidance; `None` for distilled weights, and for dev, whose scale is the embedded one."""
    return None if given["self"].config.get("is_distilled", True) else guidance_scale(given)


def own_tokens(pipe: Any, texts: list[str], settings: Settings) -> np.ndarray[Any, Any]:
    """The tokens of a prompt and its chat template, (text, token)."""
    chat = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    said = [pipe.tokenizer.apply_chat_template([{"role": "user", "content": text}], **chat) for text in texts]
    return attended(pipe.tokenizer, said, settings["max_sequence_length"])


def dev_settings(pipe: Any) -> dict[str, Any]:
    """Text length, and the embedded guidance where the weights take one."""
    guided = {"embedded_guidance": 4.0} if pipe.transformer.config.guidance_embeds else {}
    return {"max_sequence_length": 512, **guided}


def dev_conditions(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """The embedded guidance, (batch,), where the weights take one."""
    given = [float(settings["embedded_guidance"])] * len(texts) if "embedded_guidance" in settings else []
    return {"guidance": torch.tensor(given, device=pipe._execution_device)} if given else {}


def dev_tokens(pipe: Any, texts: list[str], settings: Settings) -> np.ndarray[Any, Any]:
    """The tokens of a prompt, the system message and the chat template, (text, token)."""
    from diffusers.pipelines.flux2.pipeline_flux2 import format_input

    chat = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "padding": "max_length", "truncation": True}
    said = format_input(texts, system_message=pipe.system_message)
    given = pipe.tokenizer.apply_chat_template(said, max_length=settings["max_sequence_length"], **chat)
    return np.asarray(given["attention_mask"].bool())


KLEIN = text_pipeline(
    "Flux2KleinPipeline",
    packed_layout,
    encode,
    unpack=unpack,
    pack=lambda pipe, latents: latents.flatten(2).transpose(1, 2),
    to_autoencoder=to_autoencoder,
    from_autoencoder=from_autoencoder,
    levels=Levels(falling, shift=shift, leaves_flow=True),
    own_tokens=own_tokens,
)
DEV = dataclasses.replace(
    KLEIN,
    pipeline_class="Flux2Pipeline",
    guidance_off={},
    settings=dev_settings,
    argument_of={"embedded_guidance": "guidance_scale"},
    tokenizers={},  # a processor does not tell how long a prompt alone is
    conditions=dev_conditions,
    own_tokens=dev_tokens,
)
FAMILY = ModelFamily("flux2", "Flux2Transformer2DModel", describe, (KLEIN, DEV), OwnGuidance("calls", own_scale))
