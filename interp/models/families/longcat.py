"""LongCat-Image (`LongCatImageTransformer2DModel`, `LongCatImagePipeline`), as in diffusers 0.42: FLUX.1's blocks.

The blocks are FLUX.1's: double blocks, then single blocks, which return (text, image). The gates depend on the timestep alone.
`temb` enters again in `norm_out`. The transformer receives the timestep divided by 1000.

The text always has 512 tokens (the pipeline's `tokenizer_max_length`), padding included, without a mask in the transformer.
Words in quotes are read letter by letter. By default the pipeline has its language model rewrite the prompt, and rescales its
guided prediction to the conditional one's norm, per token. Here both are off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from interp.base.errors import InputError
from interp.models.families.calls import Settings, falling, pack, packed_layout, text_pipeline, unpack
from interp.models.families.flux import gated_by_time
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance, guidance_scale
from interp.models.families.schedules import Levels
from interp.models.lazy import torch

describe = gated_by_time(
    "longcat", "LongCatImageTransformer2DModel", "time_embed.time_proj", "time_embed.timestep_embedder", times=1000.0
)


def encode(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """Text tokens, (batch, token, channel)."""
    with torch.no_grad():
        return {"encoder_hidden_states": pipe.encode_prompt(texts)[0]}


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture; the pipeline fixes the number of text tokens."""
    return packed_layout(pipe, height, width, {"max_sequence_length": pipe.tokenizer_max_length})


def own_tokens(pipe: Any, texts: list[str], settings: Settings) -> np.ndarray[Any, Any]:
    """A prompt's own tokens, (text, token): the pipeline splits quoted words into letters and pads to its fixed length."""
    from diffusers.pipelines.longcat_image.pipeline_longcat_image import split_quotation

    found = []
    for text in texts:
        pieces = [part for said, quoted in split_quotation(text) for part in (said if quoted else [said])]
        count = sum(len(pipe.tokenizer(piece, add_special_tokens=False)["input_ids"]) for piece in pieces)
        own = np.arange(pipe.tokenizer_max_length) < count
        found.append(own[::-1] if pipe.tokenizer.padding_side == "left" else own)
    return np.stack(found)


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The pipeline's scale, or an error where it rescales its guided prediction."""
    scale = guidance_scale(given)
    if scale is not None and given["enable_cfg_renorm"] and given["cfg_renorm_min"] < 1:
        raise InputError(
            "guided: LongCatImagePipeline rescales its own guidance, so no guidance can be added to it; call it with "
            "enable_cfg_renorm=False, or use interp.generate(guidance=...)"
        )
    return scale


PIPELINE = text_pipeline(
    "LongCatImagePipeline",
    layout,
    encode,
    guidance_off={"guidance_scale": 1.0, "enable_prompt_rewrite": False},
    settings=lambda pipe: {},
    tokenizers={},
    settings_maximum={},
    unpack=unpack,
    pack=pack,
    levels=Levels(falling),
    own_tokens=own_tokens,
)
FAMILY = ModelFamily("longcat", "LongCatImageTransformer2DModel", describe, (PIPELINE,), OwnGuidance("calls", own_scale))
