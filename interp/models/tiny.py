"""Tiny random diffusers pipelines, complete and offline, as fixtures for tests.

folder = interp.models.tiny.build("sd3", "some/folder", seed=0)
model = interp.load(folder)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from interp.base.errors import InputError
from interp.models import components, tiny_text
from interp.models.catalog import Defaults, write_defaults
from interp.models.quiet import quiet
from interp.models.tiny_cogvideox import cogvideox
from interp.models.tiny_hidream import hidream
from interp.models.tiny_hunyuanimage import hunyuanimage
from interp.models.tiny_hunyuanvideo import hunyuanvideo
from interp.models.tiny_ltx import ltx
from interp.models.tiny_mochi import mochi
from interp.models.tiny_stableaudio import stableaudio

WORDS = components.WORDS
TEXT_TOKENS = 8


def build(family: str, folder: str | Path, *, seed: int = 0, **sizes: Any) -> Path:
    """Write a tiny random pipeline of a family and return its folder; pictures are 64x64 by default.

    `sizes` overrides the family's sizes: blocks=4 (flux, flux2, auraflow: also single_blocks), heads=2, head_width=16,
    resolution=64 (pixels; bigger for benchmarks); for sd3 dual_attention=() (block indices), for flux guidance_embeds=True, for
    pixart sigma=False, for videos frames (wan: 3).
    """
    folder = Path(folder)
    with quiet():
        pipe, defaults = make(family, seed=seed, **sizes)
        pipe.save_pretrained(folder, safe_serialization=True)
        components.tidy_configs(folder)
    write_defaults(folder, defaults)
    return folder


def make(family: str, *, seed: int = 0, **sizes: Any) -> tuple[Any, Defaults]:
    """The same pipeline in memory, with the defaults that its folder would hold."""
    if family not in BUILDERS:
        raise InputError(f"family must be one of {', '.join(BUILDERS)}; got {family!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BUILDERS[family](**sizes)


def sd3(
    *, blocks: int = 4, heads: int = 2, head_width: int = 16, dual_attention: tuple[int, ...] = (), resolution: int = 64
) -> tuple[Any, Defaults]:
    """A tiny Stable Diffusion 3 pipeline."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    width = heads * head_width
    clip = components.clip_tokenizer(WORDS, TEXT_TOKENS)
    t5 = components.t5_tokenizer(WORDS, TEXT_TOKENS)
    encoders = [components.clip_text_encoder(clip, width=16, projection=16) for _ in range(2)]
    transformer = SD3Transformer2DModel(
        sample_size=resolution // 4,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=blocks,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        joint_attention_dim=32,
        caption_projection_dim=width,
        pooled_projection_dim=32,
        pos_embed_max_size=resolution // 4,
        dual_attention_layers=dual_attention,
        qk_norm="rms_norm" if dual_attention else None,
    )
    pipe = StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=components.vae(latent_channels=4, width=8, levels=3),
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        text_encoder_3=components.t5_text_encoder(t5, width=32),
        tokenizer=clip,
        tokenizer_2=clip,
        tokenizer_3=t5,
    )
    return pipe, _defaults(resolution, max_sequence_length=TEXT_TOKENS)


def flux(
    *,
    blocks: int = 2,
    single_blocks: int = 3,
    heads: int = 2,
    head_width: int = 16,
    guidance_embeds: bool = True,
    resolution: int = 64,
) -> tuple[Any, Defaults]:
    """A tiny FLUX.1 pipeline; without `guidance_embeds` it has the shape of schnell and of the de-distilled variant."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    clip = components.clip_tokenizer(WORDS, TEXT_TOKENS)
    t5 = components.t5_tokenizer(WORDS, TEXT_TOKENS)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=blocks,
        num_single_layers=single_blocks,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(head_width // 4, head_width * 3 // 8, head_width * 3 // 8),
    )
    pipe = FluxPipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=components.vae(latent_channels=4, width=8, levels=3),
        text_encoder=components.clip_text_encoder(clip, width=16, projection=None),
        text_encoder_2=components.t5_text_encoder(t5, width=32),
        tokenizer=clip,
        tokenizer_2=t5,
    )
    return pipe, _defaults(resolution, max_sequence_length=TEXT_TOKENS)


def dit(*, blocks: int = 4, heads: int = 2, head_width: int = 16, resolution: int = 64) -> tuple[Any, Defaults]:
    """A tiny class-conditional DiT pipeline with learned sigma; its first classes are named by `WORDS`."""
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    transformer = DiTTransformer2DModel(
        sample_size=resolution // 4,
        patch_size=2,
        in_channels=4,
        out_channels=8,
        num_layers=blocks,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        num_embeds_ada_norm=1000,
    )
    pipe = DiTPipeline(
        transformer=transformer.eval(),
        vae=components.vae(latent_channels=4, width=8, levels=3),
        scheduler=DDIMScheduler(),
    )
    pipe.register_to_config(id2label={str(number): word for number, word in enumerate(WORDS)})
    return pipe, Defaults(steps=4)


def _defaults(resolution: int, **settings: Any) -> Defaults:
    return Defaults(steps=4, height=resolution, width=resolution, settings=settings)


BUILDERS: dict[str, Callable[..., tuple[Any, Defaults]]] = {
    "sd3": sd3,
    "flux": flux,
    "dit": dit,
    **tiny_text.BUILDERS,
    "ltx": ltx,
    "cogvideox": cogvideox,
    "hunyuanimage": hunyuanimage,
    "mochi": mochi,
    "hidream": hidream,
    "stableaudio": stableaudio,
    "hunyuanvideo": hunyuanvideo,
}
