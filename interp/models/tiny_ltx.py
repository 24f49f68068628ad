"""A tiny random LTX-Video pipeline. No download."""

from __future__ import annotations

from typing import Any

from interp.models import components
from interp.models.catalog import Defaults

TEXT_TOKENS = 8


def ltx(
    *,
    blocks: int = 3,
    heads: int = 2,
    head_width: int = 16,
    resolution: int = 64,
    frames: int = 3,
    timestep_conditioning: bool = False,
) -> tuple[Any, Defaults]:
    """A tiny LTX-Video text-to-video pipeline: two pictures per latent frame, eight pixels per latent. With
    `timestep_conditioning` its autoencoder takes a timestep, as in LTX-Video 0.9.1.
    """
    import torch
    from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel

    tokenizer = components.t5_tokenizer(components.WORDS, TEXT_TOKENS)
    transformer = LTXVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_layers=blocks,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        cross_attention_dim=heads * head_width,
        caption_channels=32,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=4,
        block_out_channels=(8, 8),
        down_block_types=("LTXVideoDownBlock3D",) * 2,
        decoder_block_out_channels=(8, 8),
        layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, False),
        decoder_spatio_temporal_scaling=(True, False),
        decoder_inject_noise=(False, False, False),
        downsample_type=("conv", "conv"),
        upsample_residual=(False, False),
        upsample_factor=(1, 1),
        timestep_conditioning=timestep_conditioning,
        patch_size=4,
    )
    vae.latents_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    vae.latents_std.copy_(torch.tensor([1.5, 2.0, 0.7, 1.0]))
    pipe = LTXPipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            base_shift=0.95,
            max_shift=2.05,
            base_image_seq_len=1024,
            max_image_seq_len=4096,
            shift_terminal=0.1,
        ),
        vae=vae.eval(),
        text_encoder=components.t5_text_encoder(tokenizer, width=32),
        tokenizer=tokenizer,
    )
    settings = {"max_sequence_length": TEXT_TOKENS, "num_frames": frames}
    return pipe, Defaults(steps=4, height=resolution, width=resolution, settings=settings)
