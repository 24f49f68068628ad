"""HunyuanVideo, text to video (`HunyuanVideoTransformer3DModel`, `HunyuanVideoPipeline`), as in diffusers 0.42.

The blocks are FLUX.1's, with the image before the text. Double blocks come before single blocks. Both return (image, text).
Image tokens are (frame, y, x). A single block joins the streams. It has one projection and one gate, shared by both streams and
by attention and MLP, which `proj_out` joins. The gates depend on the timestep, the pooled text (CLIP) and, where the weights
take one, the embedded guidance. The transformer receives the guidance times 1000. `temb` enters again in `norm_out`.

The text tokens come from a language model, under a template. The transformer refines them before the blocks
(`context_embedder`, whose gates are not in the anatomy). A mask hides padding from attention.
"""

from __future__ import annotations

from typing import Any

from interp.base.errors import ModelError
from interp.models.anatomy import Anatomy, Conditioning, Inputs, Norm, Reentry
from interp.models.families.blocks import (
    ADALN_SINGLE,
    IMAGE_FIRST,
    MLPS,
    ROWS,
    double_block,
    numbered,
    projected,
    single_block,
    text_stream,
    video_stream,
)
from interp.models.families.calls import Settings, encoder, falling_to_zero, patch_layout, text_pipeline, unmasked, video_layout
from interp.models.families.flux import own_scale
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance
from interp.models.families.schedules import Levels
from interp.models.lazy import torch

MASKED = (*ROWS, "attention_mask")
MIDS_FIRST = sorted(MLPS, key=lambda tap: tap.kind != "mid")  # both streams' second norms run before their MLPs
DOUBLE = double_block(mlps=MIDS_FIRST, order=IMAGE_FIRST, rows=MASKED)
SINGLE = single_block(projected("image", "norm", ADALN_SINGLE), order=IMAGE_FIRST, rows=MASKED, joint=False)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it; `hidden_states` gives only the dtype."""
    pooled = inputs["pooled_projections"]
    temb, _ = transformer.time_text_embed(inputs["timestep"], pooled, inputs.get("guidance"))
    return {"temb": temb, "hidden_states": pooled}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `HunyuanVideoTransformer3DModel`: blocks are numbered consecutively, double blocks first."""
    config = transformer.config
    if config.image_condition_type is not None:
        kind = config.image_condition_type
        raise ModelError(f"HunyuanVideoTransformer3DModel: weights that take a picture ({kind}) cannot be traced")
    guided = ("guidance",) if config.guidance_embeds else ()
    text = ("encoder_hidden_states", "encoder_attention_mask", "pooled_projections")
    width = config.num_attention_heads * config.attention_head_dim
    return Anatomy(
        family="hunyuanvideo",
        model_class="HunyuanVideoTransformer3DModel",
        streams=(video_stream(width), text_stream(width)),
        blocks=numbered(transformer, transformer_blocks=DOUBLE, single_transformer_blocks=SINGLE),
        row_inputs=("hidden_states", *text, "timestep", *guided),
        reentries=(Reentry("norm_out", "conditioning_embedding"),),
        conditioning=Conditioning(
            {"timestep": "timestep", "text": "pooled_projections", **{name: name for name in guided}},
            block_conditioning,
            guidance_scale=1000.0,
        ),
        last_norm=Norm("norm_out.norm"),
        forks=False,
    )


def settings(pipe: Any) -> dict[str, Any]:
    """Text length and frames, and the embedded guidance where the weights take one."""
    guided = {"embedded_guidance": 6.0} if pipe.transformer.config.guidance_embeds else {}
    return {"max_sequence_length": 256, "num_frames": 129, **guided}


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a video of height x width pixels."""
    length, scale = settings["max_sequence_length"], pipe.vae_scale_factor_spatial
    still = patch_layout(pipe, height, width, length, scale=scale, least=16)
    return video_layout(still, settings["num_frames"], pipe.vae_scale_factor_temporal, pipe.transformer.config.patch_size_t)


def encode(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """Text tokens, (batch, token, channel), their mask, and pooled text, (batch, channel), in the transformer's dtype."""
    found = encoder(encoder_hidden_states=0, encoder_attention_mask=2, pooled_projections=1)(pipe, texts, settings)
    return {name: value.to(pipe.transformer.dtype) for name, value in found.items()}


def conditions(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """The pooled text, (batch, channel), and the embedded guidance, times 1000, where the weights take one."""
    pooled = encode(pipe, texts, settings)["pooled_projections"]
    if "embedded_guidance" not in settings:
        return {"pooled_projections": pooled}
    given = [settings["embedded_guidance"]] * len(texts)
    return {"pooled_projections": pooled, "guidance": torch.tensor(given, dtype=pooled.dtype, device=pooled.device) * 1000.0}


PIPELINE = text_pipeline(
    "HunyuanVideoPipeline",
    layout,
    encode,
    longest=256,
    guidance_off={"true_cfg_scale": 1.0},
    default_size=lambda pipe: (720, 1280),
    settings=settings,
    argument_of={"embedded_guidance": "guidance_scale"},
    tokenizers={"tokenizer": "max_sequence_length", "tokenizer_2": None},
    gates=("pooled_projections",),
    conditions=conditions,
    levels=Levels(falling_to_zero),
    moving=True,
    own_tokens=unmasked(encode, "encoder_attention_mask"),
)
FAMILY = ModelFamily("hunyuanvideo", "HunyuanVideoTransformer3DModel", describe, (PIPELINE,), OwnGuidance("calls", own_scale))
