"""A tiny random Mochi pipeline: videos, tanh gates, text half as wide as the image."""

from __future__ import annotations

from typing import Any

from interp.models import components
from interp.models.catalog import Defaults

TEXT_TOKENS = 8
LEVEL = 32  # channels: the autoencoder's group norms have 32 groups


def mochi(
    *,
    blocks: int = 3,
    heads: int = 2,
    head_width: int = 16,
    resolution: int = 64,
    frames: int = 7,
    text_width: int | None = None,
) -> tuple[Any, Defaults]:
    """A tiny Mochi pipeline: six pictures per latent frame. `text_width` of text tokens, by default half the image's."""
    import torch
    from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiPipeline, MochiTransformer3DModel

    tokenizer = components.t5_tokenizer(components.WORDS, TEXT_TOKENS)
    transformer = MochiTransformer3DModel(
        num_layers=blocks,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        pooled_projection_dim=text_width or heads * head_width // 2,
        in_channels=12,
        text_embed_dim=32,
        time_embed_dim=32,
        max_sequence_length=TEXT_TOKENS,
    )
    with torch.no_grad():
        transformer.pos_frequencies.normal_()  # learned; zeros would leave tokens without a position
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=(LEVEL,) * 4,
        decoder_block_out_channels=(LEVEL,) * 4,
        layers_per_block=(1, 1, 1, 1, 1),
        add_attention_block=(False,) * 5,
    )
    pipe = MochiPipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=vae.eval(),
        text_encoder=components.t5_text_encoder(tokenizer, width=32),
        tokenizer=tokenizer,
    )
    settings = {"max_sequence_length": TEXT_TOKENS, "num_frames": frames}
    return pipe, Defaults(steps=4, height=resolution, width=resolution, settings=settings)
