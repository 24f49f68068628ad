"""Ovis-Image (`OvisImageTransformer2DModel`, `OvisImagePipeline`), as in diffusers 0.42: FLUX.1's blocks with SwiGLU MLPs.

Double blocks come before single blocks. Both return (text, image), and their AdaLN projections are FLUX.1's. The gates depend
on the timestep alone. `temb` enters again in `norm_out`. The transformer receives the timestep divided by 1000.

The pipeline puts an instruction before the prompt and drops its first 28 tokens after encoding, whatever the tokenizer made of
it. Padding is zeros, without a mask in the transformer.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from interp.models.anatomy import Anatomy, Conditioning, Norm, Reentry, Timestep
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
from interp.models.families.calls import Settings, attended, encoder, falling, pack, packed_layout, text_pipeline, unpack
from interp.models.families.pipeline import ModelFamily, OwnGuidance
from interp.models.families.schedules import Levels

DOUBLE = double_block()
SINGLE = single_block(projected("image", "norm", ADALN_SINGLE), rows=ROWS, joint=False)


def describe(transformer: Any) -> Anatomy:
    """The anatomy of an `OvisImageTransformer2DModel`: blocks are numbered consecutively, double blocks first."""
    return Anatomy(
        family="ovis",
        model_class="OvisImageTransformer2DModel",
        streams=(image_stream(transformer.inner_dim), text_stream(transformer.inner_dim)),
        blocks=numbered(transformer, transformer_blocks=DOUBLE, single_transformer_blocks=SINGLE),
        row_inputs=("hidden_states", "encoder_hidden_states", "timestep"),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        timestep=Timestep(scale=1000.0),
        conditioning=Conditioning(
            {"timestep": "timestep"}, partial(embed_cast_timestep, "time_proj", "timestep_embedder", times=1000)
        ),
        last_norm=Norm("norm_out.norm"),
    )


def own_tokens(pipe: Any, texts: list[str], settings: Settings) -> np.ndarray[Any, Any]:
    """The tokens of a prompt and of the chat template after it, (text, token)."""
    dropped = pipe.user_prompt_begin_id
    return attended(pipe.tokenizer, pipe._get_messages(texts), settings["max_sequence_length"] + dropped)[:, dropped:]


PIPELINE = text_pipeline(
    "OvisImagePipeline",
    packed_layout,
    encoder(encoder_hidden_states=0),
    256,
    longest=256,
    unpack=unpack,
    pack=pack,
    levels=Levels(falling, leaves_flow=True),
    own_tokens=own_tokens,
)
FAMILY = ModelFamily("ovis", "OvisImageTransformer2DModel", describe, (PIPELINE,), OwnGuidance("calls"))
