"""Z-Image (`ZImageTransformer2DModel`, `ZImagePipeline`), as in diffusers 0.42.

Refiner blocks take the image alone. Joint blocks take and return one state: a row's image tokens, its text tokens, and padding
up to the longest row. Image and text are padded to multiples of 32 tokens by a learned token, which attention sees. Text is
conditioning here, not a stream: its length depends on the row, and its own refiner has no gates. The gates of a joint block act
on text and padding too, which come after the image, so edits of states leave them unchanged.

Norms are RMS norms. There are no shifts. Each branch is normalised again before its gate, which is a tanh; a branch here is the
output of that norm. The gates depend on the timestep alone, which enters again in the final layer. The transformer receives 1
minus the timestep over 1000, takes and returns lists of pictures, and predicts minus the velocity.

The pipeline's guidance is c + scale (c - u): its scale is one less than that of others, and 0 turns it off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from interp.base.errors import InputError, ModelError
from interp.models.anatomy import Anatomy, Block, Conditioning, Form, Inputs, Lengths, Modulation, Reentry, Tap, Timestep
from interp.models.families.blocks import image_stream, numbered
from interp.models.families.calls import Settings, falling, text_pipeline
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance
from interp.models.families.schedules import Levels
from interp.models.hook_points import REST

CHUNKS = ("scale.attn", "alpha.attn", "scale.mlp", "alpha.mlp")
HELD = ("image", REST)
REFINER = Block(
    path="",
    kind="refiner",
    hidden={"image": None},
    reads=(
        Modulation(
            "image",
            "adaLN_modulation",
            CHUNKS,
            lambda block, inputs: block.get_submodule("adaLN_modulation")(inputs["adaln_input"]),
            tanh=True,
        ),
        Tap("image", "modulated", "attn", "attention", "input", joint=HELD),
        Tap("image", "branch", "attn", "attention_norm2", joint=HELD),
        Tap("image", "mid", None, "ffn_norm1", "input", joint=HELD),
        Tap("image", "modulated", "mlp", "feed_forward", "input", joint=HELD),
        Tap("image", "branch", "mlp", "ffn_norm2", joint=HELD),
    ),
    row_inputs=("x", "attn_mask", "freqs_cis", "adaln_input"),
    state_inputs={"image": "x"},
    joint=("image",),
    followed=True,
)
JOINT = dataclasses.replace(REFINER, kind="joint")


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' `adaln_input` as the transformer's forward computes it."""
    return {"adaln_input": transformer.t_embedder(inputs["t"] * transformer.t_scale).to(transformer.dtype)}


def lengths(given: Inputs) -> Lengths:
    """Tokens of the image, from the transformer's arguments: two by two latents each."""
    height, width = given["x"][0].shape[-2:]
    return {"image": (height // 2) * (width // 2), "text": 0}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `ZImageTransformer2DModel`: blocks are numbered consecutively, the image's refiner first."""
    if transformer.config.siglip_feat_dim is not None:
        raise ModelError("ZImageTransformer2DModel: weights that take pictures (siglip_feat_dim) cannot be traced")
    return Anatomy(
        family="zimage",
        model_class="ZImageTransformer2DModel",
        streams=(image_stream(transformer.dim),),
        blocks=numbered(transformer, noise_refiner=REFINER, layers=JOINT),
        row_inputs=("x", "t", "cap_feats"),
        reentries=(Reentry("all_final_layer.2-1", "c"),),
        forms={"x": Form(listed=True)},
        timestep=Timestep("t", scale=1000.0, rises=True),
        conditioning=Conditioning({"timestep": "t"}, block_conditioning),
        lengths=lengths,
        forks=False,
    )


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture of height x width pixels."""
    multiple = 2 * pipe.vae_scale_factor
    rows, columns = height // multiple, width // multiple
    return Layout(
        sizes={"image": (rows, columns)},
        latents={"latent_channel": pipe.transformer.in_channels, "latent_y": 2 * rows, "latent_x": 2 * columns},
        pixel_multiple=multiple,
        prediction=("minus_velocity",),
    )


def encode(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """Each text's own tokens, (token, channel): a list. The pipeline writes its template into the list that it is given."""
    found, _ = pipe.encode_prompt(
        list(texts), do_classifier_free_guidance=False, max_sequence_length=settings["max_sequence_length"]
    )
    return {"cap_feats": found}


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The pipeline's scale as u + scale (c - u), or an error where it rescales its guided prediction or leaves steps out."""
    if given["guidance_scale"] <= 0:
        return None
    if given["cfg_normalization"] or (given["cfg_truncation"] is not None and given["cfg_truncation"] < 1):
        raise InputError(
            "guided: ZImagePipeline rescales its own guidance, or stops it, so no guidance can be added to it; call it with "
            "cfg_normalization=False and cfg_truncation=1.0, or use interp.generate(guidance=...)"
        )
    return 1.0 + float(given["guidance_scale"])


PIPELINE = text_pipeline(
    "ZImagePipeline",
    layout,
    encode,
    guidance_off={"guidance_scale": 0.0},
    default_size=lambda pipe: (1024, 1024),
    levels=Levels(falling),
)
FAMILY = ModelFamily("zimage", "ZImageTransformer2DModel", describe, (PIPELINE,), OwnGuidance("cond first", own_scale))
