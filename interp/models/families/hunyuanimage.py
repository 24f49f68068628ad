"""HunyuanImage 2.1 (`HunyuanImageTransformer2DModel`, `HunyuanImagePipeline`), as in diffusers 0.42.

Double blocks come before single blocks. Both return (image, text). A double block has an AdaLN-Zero projection per stream. A
single block joins the streams, image first. It has one projection and one gate, shared by both streams and by attention and
MLP, which `proj_out` joins. The gates depend on the timestep. In distilled weights they also depend on an embedded guidance and
the next step's timestep (MeanFlow). Text does not enter the gates. `temb` enters again in `norm_out`.

The text has a fixed length, under a mask: 128 tokens for the words in quotes (the glyphs), 1000 for the prompt. The transformer
moves masked tokens to the end, so a token's position depends on its row's prompt.

The pipeline's own guidance is a component (a guider) that no argument turns off. Loading removes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from interp.base.errors import InputError, ModelError
from interp.models.anatomy import Anatomy, Conditioning, Inputs, Norm, Reentry, Timestep
from interp.models.families.blocks import image_stream, numbered, text_stream
from interp.models.families.calls import Settings, falling_to_zero, patch_layout
from interp.models.families.hunyuanvideo import DOUBLE, SINGLE
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance, PipelineSpec
from interp.models.families.schedules import Levels
from interp.models.lazy import torch

TEXT_INPUTS = ("encoder_hidden_states", "encoder_attention_mask", "encoder_hidden_states_2", "encoder_attention_mask_2")
GUIDERS = ("guider", "ocr_guider")


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it; `hidden_states` gives only the dtype."""
    of_dtype = torch.empty(0, dtype=transformer.dtype)
    return {"temb": transformer.time_guidance_embed(inputs["timestep"].to(transformer.dtype)), "hidden_states": of_dtype}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `HunyuanImageTransformer2DModel`: blocks are numbered consecutively, double blocks first."""
    config = transformer.config
    if len(config.patch_size) != 2:
        raise ModelError("HunyuanImageTransformer2DModel: the refiner (its latents have frames) cannot be traced; use 2.1")
    distilled = config.guidance_embeds or config.use_meanflow  # the timestep alone does not set its gates
    width = config.num_attention_heads * config.attention_head_dim
    return Anatomy(
        family="hunyuanimage",
        model_class="HunyuanImageTransformer2DModel",
        streams=(image_stream(width), text_stream(width)),
        blocks=numbered(transformer, transformer_blocks=DOUBLE, single_transformer_blocks=SINGLE),
        row_inputs=("hidden_states", *TEXT_INPUTS, "timestep", "timestep_r", "guidance"),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        conditioning=None if distilled else Conditioning({"timestep": "timestep"}, block_conditioning),
        last_norm=Norm("norm_out.norm"),
        timestep=Timestep(alone=not config.use_meanflow),
        forks=False,
    )


def guiding(pipe: Any) -> list[str]:
    """The pipeline's enabled guiders."""
    found = {name: getattr(pipe, name, None) for name in GUIDERS}
    return [name for name, guider in found.items() if guider is not None and guider._enabled]


def settings(pipe: Any) -> dict[str, Any]:
    """The embedded guidance, where the weights take one; an error if a guider is enabled."""
    if guiding(pipe):
        raise ModelError(
            f"HunyuanImagePipeline: its {guiding(pipe)[0]} is enabled, and no argument turns it off; set pipe.guider "
            "and pipe.ocr_guider to None and pass the pipeline to interp.wrap"
        )
    return {"embedded_guidance": 3.25} if pipe.transformer.config.guidance_embeds else {}


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture of height x width pixels."""
    glyphs = 0 if pipe.transformer.context_embedder_2 is None else pipe.tokenizer_2_max_length
    return patch_layout(pipe, height, width, glyphs + pipe.tokenizer_max_length, least=2 * pipe.vae_scale_factor)


def text_states(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """The text tokens and their masks, of the prompt and of its glyphs, as the transformer takes them."""
    return dict(zip(TEXT_INPUTS, pipe.encode_prompt(texts, batch_size=len(texts)), strict=True))


def own_tokens(pipe: Any, texts: list[str], settings: Settings) -> np.ndarray[Any, Any]:
    """A prompt's own tokens, (text, token): the transformer puts those of both encoders before all padding."""
    with torch.no_grad():
        states = text_states(pipe, texts, settings)
    both = pipe.transformer.context_embedder_2 is not None
    masks = [np.asarray(states[name].bool().cpu()) for name in TEXT_INPUTS[1 :: 2 if both else 4]]
    if not both:
        return masks[0]
    joined = np.concatenate(masks, axis=1)
    return np.asarray(np.arange(joined.shape[1]) < joined.sum(axis=1)[:, None])


def own_scale(given: Mapping[str, Any]) -> float | None:
    """`None`, or an error if a guider is enabled: guiders do not compute u + scale (c - u) at every step."""
    if guiding(given["self"]):
        raise InputError(
            "guided: HunyuanImagePipeline's guider projects and keeps state, so no guidance can be added to it; set "
            "pipe.guider and pipe.ocr_guider to None, or use interp.generate(guidance=...)"
        )
    return None


PIPELINE = PipelineSpec(
    pipeline_class="HunyuanImagePipeline",
    layout=layout,
    guidance_off={},
    settings=settings,
    argument_of={"embedded_guidance": "distilled_guidance_scale"},
    left_out=GUIDERS,
    conditions=lambda pipe, texts, settings: {},
    text_states=text_states,
    own_tokens=own_tokens,
    unconditional=lambda pipe, negative, settings: text_states(pipe, [negative], settings),
    levels=Levels(falling_to_zero),
)
FAMILY = ModelFamily("hunyuanimage", "HunyuanImageTransformer2DModel", describe, (PIPELINE,), OwnGuidance("calls", own_scale))
