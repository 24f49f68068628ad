"""A tiny random CogVideoX pipeline. No download."""

from __future__ import annotations

from typing import Any

from interp.models import components
from interp.models.catalog import Defaults

TEXT_TOKENS = 8


def cogvideox(
    *,
    blocks: int = 3,
    heads: int = 2,
    head_width: int = 16,
    resolution: int = 64,
    frames: int = 5,
    rotary: bool = False,
    patch_frames: int | None = None,
) -> tuple[Any, Defaults]:
    """A tiny CogVideoX text-to-video pipeline, two pictures per latent frame, shaped like the 2B model. `rotary` gives the
    5B model's shape, and `patch_frames=2` with it version 1.5's.
    """
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )

    tokenizer = components.t5_tokenizer(components.WORDS, TEXT_TOKENS)
    transformer = CogVideoXTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_layers=blocks,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        time_embed_dim=24,
        text_embed_dim=32,
        sample_height=resolution // 4,
        sample_width=resolution // 4,
        sample_frames=frames,
        patch_size_t=patch_frames,
        patch_bias=patch_frames is None,
        temporal_compression_ratio=2,
        max_text_seq_length=TEXT_TOKENS,
        use_rotary_positional_embeddings=rotary,
    )
    vae = AutoencoderKLCogVideoX(
        latent_channels=4,
        block_out_channels=(8, 8, 8),
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        temporal_compression_ratio=2,
        sample_height=resolution,
        sample_width=resolution,
        scaling_factor=0.7,
    )
    pipe = CogVideoXPipeline(
        transformer=transformer.eval(),
        scheduler=CogVideoXDDIMScheduler(
            clip_sample=False, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
        ),
        vae=vae.eval(),
        text_encoder=components.t5_text_encoder(tokenizer, width=32),
        tokenizer=tokenizer,
    )
    settings = {"max_sequence_length": TEXT_TOKENS, "num_frames": frames}
    return pipe, Defaults(steps=4, height=resolution, width=resolution, settings=settings)
