"""A tiny random Stable Audio pipeline: 512 samples of sound."""

from __future__ import annotations

from typing import Any

from interp.models import components
from interp.models.catalog import Defaults

TEXT_TOKENS = 8


def stableaudio(*, blocks: int = 3, heads: int = 2, head_width: int = 16, tokens: int = 64) -> tuple[Any, Defaults]:
    """A tiny Stable Audio pipeline. Its scheduler is deterministic, has the same prediction type and needs no torchsde."""
    from diffusers import (
        AutoencoderOobleck,
        EDMDPMSolverMultistepScheduler,
        StableAudioDiTModel,
        StableAudioPipeline,
        StableAudioProjectionModel,
    )

    tokenizer = components.t5_tokenizer(components.WORDS, TEXT_TOKENS)
    transformer = StableAudioDiTModel(
        sample_size=tokens,
        in_channels=4,
        out_channels=4,
        num_layers=blocks,
        attention_head_dim=head_width,
        num_attention_heads=heads,
        num_key_value_attention_heads=1,
        cross_attention_dim=head_width,
        cross_attention_input_dim=16,
        time_proj_dim=16,
        global_states_input_dim=32,
    )
    vae = AutoencoderOobleck(
        encoder_hidden_size=8,
        downsampling_ratios=[2, 4],
        channel_multiples=[1, 2],
        decoder_channels=8,
        decoder_input_channels=4,
        sampling_rate=100,
    )
    pipe = StableAudioPipeline(
        vae=vae.eval(),
        text_encoder=components.t5_text_encoder(tokenizer, width=32),
        projection_model=StableAudioProjectionModel(32, 16, 0, 512).eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        scheduler=EDMDPMSolverMultistepScheduler(
            sigma_min=0.3, sigma_max=500.0, sigma_data=1.0, sigma_schedule="exponential", prediction_type="v_prediction"
        ),
    )
    return pipe, Defaults(steps=4)
