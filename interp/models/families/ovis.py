"""Ovis-Image (`OvisImageTransformer2DModel`, `OvisImagePipeline`), as in diffusers 0.42: FLUX.1's blocks with SwiGLU MLPs.

Double blocks come before single blocks. Both return (text, image), and their AdaLN projections are FLUX.1's. The gates depend
on the timestep alone. `temb` enters again in `norm_out`. The transformer receives the timestep divided by 1000.

The pipeline puts an instruction before the prompt and drops its first 28 tokens after encoding, whatever the tokenizer made of
it. Padding is zeros, without a mask in the transformer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from interp.models.families.calls import Settings, attended, encoder, falling, pack, packed_layout, text_pipeline, unpack
from interp.models.families.flux import gated_by_time
from interp.models.families.pipeline import ModelFamily, OwnGuidance
from interp.models.families.schedules import Levels

describe = gated_by_time("ovis", "OvisImageTransformer2DModel", "time_proj", "timestep_embedder", times=1000.0)


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
