"""FLUX.1 (`FluxTransformer2DModel`, `FluxPipeline`, image-to-image, inpainting, Kontext), as in diffusers 0.42.

Double blocks come before single blocks. Both return (text, image). A double block has an AdaLN-Zero projection per stream. A
single block joins the streams, text first. It has one projection and one gate, shared by both streams and by attention and MLP,
which `proj_out` joins. `temb` enters again in `norm_out`. The transformer receives the timestep divided by 1000.

Kontext gives a picture's tokens behind the generated ones; their position ids begin with 1. Its pipeline would choose the sizes
of both: here both are the run's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from interp.models.anatomy import Anatomy, Conditioning, Describe, Inputs, Norm, Reentry, Timestep
from interp.models.families.blocks import (
    ADALN_SINGLE,
    ROWS,
    double_block,
    embed_cast_timestep,
    image_stream,
    numbered,
    projected,
    single_block,
    text_stream,
)
from interp.models.families.calls import (
    Settings,
    encoder,
    falling,
    own_tokens,
    pack,
    packed_layout,
    text_pipeline,
    unpack,
)
from interp.models.families.from_pictures import beside_picture, from_picture, inpainting
from interp.models.families.pipeline import ModelFamily, OwnGuidance
from interp.models.families.schedules import Levels
from interp.models.lazy import torch

DOUBLE = double_block()
SINGLE = single_block(projected("image", "norm", ADALN_SINGLE), rows=ROWS, joint=False)
encode = encoder(encoder_hidden_states=0, pooled_projections=1)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it (inputs times 1000); `hidden_states` gives only the dtype."""
    pooled = inputs["pooled_projections"]
    named = [inputs[name].to(pooled.dtype) * 1000 for name in ("timestep", "guidance") if name in inputs]
    return {"temb": transformer.time_text_embed(*named, pooled), "hidden_states": pooled}


def conditions(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """The pooled text, (batch, channel), and the embedded guidance where the weights take one."""
    pooled = encode(pipe, texts, settings)["pooled_projections"]
    if "embedded_guidance" not in settings:
        return {"pooled_projections": pooled}
    guidance = torch.full((len(texts),), settings["embedded_guidance"], dtype=torch.float32, device=pooled.device)
    return {"pooled_projections": pooled, "guidance": guidance}


def gated_by_time(family: str, model_class: str, first: str, second: str, *, times: float = 1.0) -> Describe:
    """An anatomy of these blocks, for a transformer whose gates depend on the timestep alone. It receives the timestep divided
    by `times`, multiplies it again, and embeds it by two modules.
    """

    def described(transformer: Any) -> Anatomy:
        return Anatomy(
            family=family,
            model_class=model_class,
            streams=(image_stream(transformer.inner_dim), text_stream(transformer.inner_dim)),
            blocks=numbered(transformer, transformer_blocks=DOUBLE, single_transformer_blocks=SINGLE),
            row_inputs=("hidden_states", "encoder_hidden_states", "timestep"),
            reentries=(Reentry("norm_out", "conditioning_embedding"),),
            timestep=Timestep(scale=times),
            conditioning=Conditioning({"timestep": "timestep"}, partial(embed_cast_timestep, first, second, times=times)),
            last_norm=Norm("norm_out.norm"),
        )

    return described


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `FluxTransformer2DModel`: blocks are numbered consecutively, double blocks first."""
    guided = ("guidance",) if transformer.config.guidance_embeds else ()
    return Anatomy(
        family="flux",
        model_class="FluxTransformer2DModel",
        streams=(image_stream(transformer.inner_dim), text_stream(transformer.inner_dim)),
        blocks=numbered(transformer, transformer_blocks=DOUBLE, single_transformer_blocks=SINGLE),
        row_inputs=("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", *guided),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        timestep=Timestep(scale=1000.0),
        conditioning=Conditioning(
            {"timestep": "timestep", "text": "pooled_projections", **{name: name for name in guided}}, block_conditioning
        ),
        last_norm=Norm("norm_out.norm"),
    )


def settings(pipe: Any) -> dict[str, Any]:
    """Text length, and the embedded guidance where the weights take one."""
    guided = {"embedded_guidance": 3.5} if pipe.transformer.config.guidance_embeds else {}
    return {"max_sequence_length": 512, **guided}


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The scale of true classifier-free guidance; `None` without a negative prompt, as text or encoded."""
    scale = given.get("true_cfg_scale", 1.0)
    encoded = given.get("negative_prompt_embeds") is not None and given.get("negative_pooled_prompt_embeds") is not None
    return scale if scale > 1 and (given.get("negative_prompt") is not None or encoded) else None


PIPELINE = text_pipeline(
    "FluxPipeline",
    packed_layout,
    encode,
    guidance_off={"true_cfg_scale": 1.0},
    settings=settings,
    tokenizers={"tokenizer": None, "tokenizer_2": "max_sequence_length"},
    argument_of={"embedded_guidance": "guidance_scale"},
    gates=("pooled_projections",),
    conditions=conditions,
    unpack=unpack,
    pack=pack,
    levels=Levels(falling, leaves_flow=True),
    own_tokens=own_tokens(("tokenizer_2", "max_sequence_length")),
)
IMG2IMG = from_picture(PIPELINE, "FluxImg2ImgPipeline", levels=Levels(falling))
KONTEXT = beside_picture(
    PIPELINE,
    "FluxKontextPipeline",
    lambda given: int((given["img_ids"][..., 0] == 1).sum()),
    guidance_off={**PIPELINE.guidance_off, "_auto_resize": False},
    of_size=lambda height, width: {"max_area": height * width},
    levels=Levels(falling),
)
INPAINT = inpainting(PIPELINE, "FluxInpaintPipeline", levels=Levels(falling))
PIPELINES = (PIPELINE, IMG2IMG, KONTEXT, INPAINT)
FAMILY = ModelFamily("flux", "FluxTransformer2DModel", describe, PIPELINES, OwnGuidance("calls", own_scale))
