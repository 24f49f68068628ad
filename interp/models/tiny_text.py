"""Tiny random pipelines with language models as text encoders: FLUX.2, Qwen-Image, SANA, PixArt, Wan, AuraFlow, ..."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from interp.models import components, languages
from interp.models.catalog import Defaults

WORDS = components.WORDS
TEXT_TOKENS = 8


def flux2(
    *, blocks: int = 2, single_blocks: int = 3, heads: int = 2, head_width: int = 16, resolution: int = 64
) -> tuple[Any, Defaults]:
    """A tiny FLUX.2 klein pipeline."""
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel

    tokenizer = languages.qwen_tokenizer([*WORDS, "user assistant"], 512)
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=blocks,
        num_single_layers=single_blocks,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        joint_attention_dim=3 * 16,
        timestep_guidance_channels=32,
        axes_dims_rope=(head_width // 4,) * 4,
        guidance_embeds=False,
    )
    pipe = Flux2KleinPipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=AutoencoderKLFlux2(**_levels(3), latent_channels=4, layers_per_block=1, norm_num_groups=4).eval(),
        text_encoder=languages.qwen3(tokenizer, width=16, layers=28),
        tokenizer=tokenizer,
    )
    return pipe, _defaults(resolution, max_sequence_length=2 * TEXT_TOKENS)


def qwenimage(*, blocks: int = 3, heads: int = 2, head_width: int = 16, resolution: int = 64) -> tuple[Any, Defaults]:
    """A tiny Qwen-Image pipeline."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )

    template = (
        "system Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of "
        "the objects and background: user assistant"
    )
    tokenizer = languages.qwen_tokenizer([*WORDS, template], 1024)
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=blocks,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        joint_attention_dim=32,
        axes_dims_rope=(head_width // 4, head_width * 3 // 8, head_width * 3 // 8),
    )
    vae = AutoencoderKLQwenImage(**_video_levels(), latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 2.0, 0.7, 1.0])
    pipe = QwenImagePipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae.eval(),
        text_encoder=languages.qwen_vl(tokenizer, width=32),
        tokenizer=tokenizer,
    )
    return pipe, _defaults(resolution, max_sequence_length=3 * TEXT_TOKENS)


def sana(*, blocks: int = 3, heads: int = 2, head_width: int = 16, resolution: int = 64) -> tuple[Any, Defaults]:
    """A tiny SANA pipeline."""
    from diffusers import DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel

    instruction = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    tokenizer = languages.gemma_tokenizer([*WORDS, *instruction], 2048)
    width = heads * head_width
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=blocks,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        num_cross_attention_heads=heads,
        cross_attention_head_dim=head_width,
        cross_attention_dim=width,
        caption_channels=32,
        sample_size=resolution // 4,
        qk_norm="rms_norm_across_heads",
    )
    pipe = SanaPipeline(
        transformer=transformer.eval(),
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, algorithm_type="dpmsolver++"
        ),
        vae=components.vae(latent_channels=4, width=8, levels=3),
        text_encoder=languages.gemma2(tokenizer, width=32),
        tokenizer=tokenizer,
    )
    return pipe, _defaults(resolution, max_sequence_length=TEXT_TOKENS)


def pixart(
    *, blocks: int = 3, heads: int = 2, head_width: int = 24, resolution: int = 64, sigma: bool = False
) -> tuple[Any, Defaults]:
    """A tiny PixArt-alpha pipeline, whose weights take the picture's size, or a PixArt-Sigma one, without that input."""
    from diffusers import DPMSolverMultistepScheduler, PixArtAlphaPipeline, PixArtSigmaPipeline, PixArtTransformer2DModel

    tokenizer = components.t5_tokenizer(WORDS, TEXT_TOKENS)
    transformer = PixArtTransformer2DModel(
        in_channels=4,
        out_channels=8,
        num_layers=blocks,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        cross_attention_dim=heads * head_width,
        caption_channels=32,
        sample_size=resolution // 4 if sigma else 128,  # the pipeline passes the size only at 128
    )
    pipe = (PixArtSigmaPipeline if sigma else PixArtAlphaPipeline)(
        transformer=transformer.eval(),
        scheduler=DPMSolverMultistepScheduler(),
        vae=components.vae(latent_channels=4, width=8, levels=3),
        text_encoder=components.t5_text_encoder(tokenizer, width=32),
        tokenizer=tokenizer,
    )
    return pipe, _defaults(resolution, max_sequence_length=TEXT_TOKENS)


def wan(
    *, blocks: int = 3, heads: int = 2, head_width: int = 16, resolution: int = 64, frames: int = 3
) -> tuple[Any, Defaults]:
    """A tiny Wan 2.1 text-to-video pipeline: two pictures per latent frame."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

    tokenizer = components.t5_tokenizer(WORDS, TEXT_TOKENS)
    transformer = WanTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_layers=blocks,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        text_dim=32,
        freq_dim=32,
        ffn_dim=64,
    )
    vae = AutoencoderKLWan(
        **_video_levels(temporal=True),
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 2.0, 0.7, 1.0],
        scale_factor_temporal=2,
        scale_factor_spatial=4,
    )
    pipe = WanPipeline(
        transformer=transformer.eval(),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        vae=vae.eval(),
        text_encoder=languages.umt5(tokenizer, width=32),
        tokenizer=tokenizer,
    )
    return pipe, _defaults(resolution, max_sequence_length=TEXT_TOKENS, num_frames=frames)


def auraflow(
    *, blocks: int = 2, single_blocks: int = 2, heads: int = 2, head_width: int = 16, resolution: int = 64
) -> tuple[Any, Defaults]:
    """A tiny AuraFlow pipeline."""
    from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler

    tokenizer = components.t5_tokenizer(WORDS, TEXT_TOKENS)
    transformer = AuraFlowTransformer2DModel(
        sample_size=resolution // 4,
        num_mmdit_layers=blocks,
        num_single_dit_layers=single_blocks,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        joint_attention_dim=32,
        caption_projection_dim=heads * head_width,
        pos_embed_max_size=(resolution // 8) ** 2,
    )
    pipe = AuraFlowPipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
        vae=components.vae(latent_channels=4, width=8, levels=3),
        text_encoder=languages.umt5(tokenizer, width=32),
        tokenizer=tokenizer,
    )
    return pipe, _defaults(resolution, max_sequence_length=TEXT_TOKENS)


def chroma(
    *, blocks: int = 2, single_blocks: int = 3, heads: int = 2, head_width: int = 16, resolution: int = 64
) -> tuple[Any, Defaults]:
    """A tiny Chroma pipeline."""
    from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

    tokenizer = components.t5_tokenizer(WORDS, TEXT_TOKENS)
    transformer = ChromaTransformer2DModel(
        in_channels=16,
        num_layers=blocks,
        num_single_layers=single_blocks,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        joint_attention_dim=32,
        axes_dims_rope=(head_width // 4, head_width * 3 // 8, head_width * 3 // 8),
        approximator_num_channels=16,
        approximator_hidden_dim=32,
        approximator_layers=2,
    )
    pipe = ChromaPipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=components.vae(latent_channels=4, width=8, levels=3),
        text_encoder=components.t5_text_encoder(tokenizer, width=32),
        tokenizer=tokenizer,
    )
    return pipe, _defaults(resolution, max_sequence_length=TEXT_TOKENS)


def hunyuandit(*, blocks: int = 4, heads: int = 2, head_width: int = 16, resolution: int = 64) -> tuple[Any, Defaults]:
    """A tiny Hunyuan-DiT pipeline: its last blocks have a long skip. Its pipeline takes eight pixels per latent."""
    from diffusers import DDPMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline

    noise = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.03, "clip_sample": False}
    noise |= {"prediction_type": "v_prediction"}
    bert, t5 = languages.bert_tokenizer(WORDS, 77), components.t5_tokenizer(WORDS, 256)
    width = heads * head_width
    transformer = HunyuanDiT2DModel(
        num_attention_heads=heads,
        attention_head_dim=head_width,
        in_channels=4,
        patch_size=2,
        sample_size=resolution // 8,
        hidden_size=width,
        num_layers=blocks,
        cross_attention_dim=16,
        cross_attention_dim_t5=32,
        pooled_projection_dim=16,
    )
    pipe = HunyuanDiTPipeline(
        vae=components.vae(latent_channels=4, width=8, levels=4),
        text_encoder=languages.bert(bert, width=16),
        tokenizer=bert,
        transformer=transformer.eval(),
        scheduler=DDPMScheduler(**noise),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=components.t5_text_encoder(t5, width=32),
        tokenizer_2=t5,
    )
    return pipe, _defaults(resolution)


def _levels(count: int) -> dict[str, Any]:
    return {
        "block_out_channels": (8,) * count,
        "down_block_types": ("DownEncoderBlock2D",) * count,
        "up_block_types": ("UpDecoderBlock2D",) * count,
    }


def _video_levels(*, temporal: bool = False) -> dict[str, Any]:
    levels = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1], "num_res_blocks": 1}
    return {**levels, "temperal_downsample": [False, temporal]}


def _defaults(resolution: int, **settings: Any) -> Defaults:
    return Defaults(steps=4, height=resolution, width=resolution, settings=settings)


BUILDERS: dict[str, Callable[..., tuple[Any, Defaults]]] = {
    "flux2": flux2,
    "qwenimage": qwenimage,
    "sana": sana,
    "pixart": pixart,
    "wan": wan,
    "auraflow": auraflow,
    "chroma": chroma,
    "hunyuandit": hunyuandit,
}
