"""SANA, SANA 1.5 (`SanaTransformer2DModel`, `SanaPipeline`), as in diffusers 0.42: one stream, text through cross-attention.

As in PixArt, AdaLN is projected once from the timestep and every block adds its own table. Text does not enter the gates.
Cross-attention (`attn2`) has no gate. Self-attention is linear. The MLP is a convolution over the picture. The embedded
timestep enters again in `norm_out`.
"""

from __future__ import annotations

import inspect
from typing import Any

from interp.models.anatomy import Anatomy, Conditioning, Inputs, Norm, Reentry
from interp.models.families.blocks import cross_block, image_stream, mlp_taps, numbered, tabled
from interp.models.families.calls import Settings, config_size, encoder, patch_layout, text_pipeline
from interp.models.families.pipeline import ModelFamily, OwnGuidance
from interp.models.families.pixart import CROSS_INPUTS

CROSS = cross_block(
    tabled("timestep"), *mlp_taps("image", "norm2", "ff", spatial=True), rows=CROSS_INPUTS, norms=("norm1", "norm2")
)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN argument, as the transformer's forward computes it."""
    timestep = inputs["timestep"]
    rows = {"guidance": inputs["guidance"]} if "guidance" in inputs else {"batch_size": len(timestep)}
    given, _ = transformer.time_embed(timestep, **rows, hidden_dtype=transformer.dtype)
    return {"timestep": given}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `SanaTransformer2DModel`."""
    config = transformer.config
    guided = ("guidance",) if config.guidance_embeds else ()
    return Anatomy(
        family="sana",
        model_class="SanaTransformer2DModel",
        streams=(image_stream(config.num_attention_heads * config.attention_head_dim),),
        blocks=numbered(transformer, transformer_blocks=CROSS),
        row_inputs=(*CROSS_INPUTS, *guided),
        reentries=(Reentry("norm_out", "temb"),),
        timestep_scale=1.0 / config.timestep_scale,
        conditioning=Conditioning({"timestep": "timestep", **{name: name for name in guided}}, block_conditioning),
        last_norm=Norm("norm_out.norm"),
        forks=False,
    )


def encode(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """The text tokens of prompts under the pipeline's instruction, and their mask."""
    instruction = inspect.signature(type(pipe).__call__).parameters["complex_human_instruction"].default
    length = settings["max_sequence_length"]
    states, mask, _, _ = pipe.encode_prompt(texts, False, max_sequence_length=length, complex_human_instruction=instruction)
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


encode_plain = encoder(encoder_hidden_states=0, encoder_attention_mask=1)  # without the instruction, as the negative prompt
PIPELINE = text_pipeline(
    "SanaPipeline",
    lambda pipe, height, width, settings: patch_layout(pipe, height, width, least=32),
    encode,
    300,
    longest=300,
    set_by_calls=("padding_side",),
    guidance_off={"guidance_scale": 1.0, "use_resolution_binning": False},
    default_size=config_size,
    unconditional=lambda pipe, negative, settings: encode_plain(pipe, [negative], settings),
)
FAMILY = ModelFamily("sana", "SanaTransformer2DModel", describe, (PIPELINE,), OwnGuidance("uncond first"))
