"""Kandinsky 5.0 image (`Kandinsky5Transformer3DModel`, `Kandinsky5T2IPipeline`), as in diffusers 0.42. No videos.

Blocks take the image; text enters through cross-attention (`attn2`). All three branches of a block have a gate. The gates
depend on the timestep and on pooled text, whose embedding enters again in `out_layer`. Blocks of the text alone come before
these; they have gates of their own and are not traced.

Nothing masks the text's padding, so a row depends on the longest prompt of its call. Calls therefore have one row, text has a
prompt's own length, and is no stream. Position embeddings round queries and keys to bfloat16 in every dtype.

The pipeline replaces other sizes by the nearest of seven, of about a megapixel. Loading turns this off: it then draws every
size that its position table holds. Latents have their channels last. The autoencoder's shift is not used.
"""

from __future__ import annotations

from typing import Any

from interp.base.errors import InputError, ModelError
from interp.models.anatomy import Anatomy, Block, Conditioning, Form, Inputs, Modulation, Norm, Reentry, Tap
from interp.models.families.blocks import image_stream, numbered
from interp.models.families.calls import Settings, encoder, text_pipeline
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance
from interp.models.lazy import torch

BRANCHES = {"attn": "self_attention", "attn2": "cross_attention", "mlp": "feed_forward"}
CHUNKS = tuple(f"{kind}.{gate}" for gate in BRANCHES for kind in ("shift", "scale", "alpha"))
MODULATION = "visual_modulation"  # its last layer, `out_layer`, gives the chunks
PLACES = 128  # of the position table along each axis
BLOCK = Block(
    path="",
    kind="cross",
    hidden={"image": None},
    reads=(
        Modulation(
            "image", f"{MODULATION}.out_layer", CHUNKS, lambda block, given: getattr(block, MODULATION)(given["time_embed"])
        ),
        *(
            tap
            for gate, module in BRANCHES.items()
            for tap in (Tap("image", "modulated", gate, module, "input"), Tap("image", "branch", gate, module))
        ),
    ),
    row_inputs=("visual_embed", "text_embed", "time_embed", "rope"),
    state_inputs={"image": "visual_embed"},
    norms=tuple(Norm(f"{module}_norm") for module in BRANCHES.values()),
    attention=("self_attention.to_value", "self_attention.out_layer"),
)
encode = encoder(encoder_hidden_states=0, pooled_projections=1)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`time_embed` as the transformer's forward computes it."""
    embedded = transformer.time_embeddings(inputs["timestep"].to(transformer.dtype))
    return {"time_embed": embedded + transformer.pooled_text_embeddings(inputs["pooled_projections"])}


def after_text(given: Inputs) -> Inputs:
    """The places of the text's tokens."""
    text = given["encoder_hidden_states"]
    return {"text_rope_pos": torch.arange(text.shape[1], device=text.device)}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `Kandinsky5Transformer3DModel`."""
    if transformer.config.visual_cond:
        raise ModelError("Kandinsky5Transformer3DModel: weights with visual_cond, those of videos, cannot be traced")
    return Anatomy(
        family="kandinsky5",
        model_class="Kandinsky5Transformer3DModel",
        streams=(image_stream(transformer.config.model_dim),),
        blocks=numbered(transformer, visual_transformer_blocks=BLOCK),
        row_inputs=("hidden_states", "encoder_hidden_states", "timestep", "pooled_projections"),
        reentries=(Reentry("out_layer", "time_embed"),),
        forms={"encoder_hidden_states": Form(ragged=True, masked=False)},
        after_text=after_text,
        conditioning=Conditioning({"timestep": "timestep", "text": "pooled_projections"}, block_conditioning),
        last_norm=Norm("out_layer.norm"),
        forks=False,
    )


def pixels(pipe: Any) -> int:
    """Height and width of a token, pixels."""
    return int(pipe.vae_scale_factor_spatial * pipe.transformer.config.patch_size[-1])


def after_loading(pipe: Any) -> None:
    """Let the pipeline draw every size."""
    sizes = [pixels(pipe) * count for count in range(1, PLACES + 1)]
    pipe.resolutions = [(width, height) for width in sizes for height in sizes]


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of a picture of height x width pixels."""
    multiple, scale = pixels(pipe), pipe.vae_scale_factor_spatial
    if height % multiple == width % multiple == 0 and (width, height) not in pipe.resolutions:
        known = ", ".join(f"{high} x {wide}" for wide, high in pipe.resolutions[:7])
        raise InputError(f"height, width: this pipeline draws {known}; got {height} x {width}; add to its `resolutions`")
    return Layout(
        sizes={"image": (height // multiple, width // multiple)},
        latents={
            "latent_frame": 1,
            "latent_y": height // scale,
            "latent_x": width // scale,
            "latent_channel": pipe.transformer.config.in_visual_dim,
        },
        pixel_multiple=multiple,
    )


PIPELINE = text_pipeline(
    "Kandinsky5T2IPipeline",
    layout,
    encode,
    longest=1023,
    gates=("pooled_projections",),
    examples=("a red circle", "a blue square"),
    default_size=lambda pipe: (1024, 1024),
    tokenizers={"tokenizer_2": None},
    after_loading=after_loading,
    unpack=lambda pipe, latents, height, width: latents[:, 0].permute(0, 3, 1, 2),
    pack=lambda pipe, latents: latents.permute(0, 2, 3, 1)[:, None],
    to_autoencoder=lambda pipe, latents: latents / pipe.vae.config.scaling_factor,
    from_autoencoder=lambda pipe, latents: latents * pipe.vae.config.scaling_factor,
)
FAMILY = ModelFamily("kandinsky5", "Kandinsky5Transformer3DModel", describe, (PIPELINE,), OwnGuidance("calls"))
