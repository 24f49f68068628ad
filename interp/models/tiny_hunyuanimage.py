"""A tiny random HunyuanImage 2.1 pipeline."""

from __future__ import annotations

from typing import Any

from transformers import ByT5Tokenizer

from interp.models import components, languages
from interp.models.catalog import Defaults

TEMPLATE = (
    "system Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background: user"
)


def hunyuanimage(
    *,
    blocks: int = 2,
    single_blocks: int = 3,
    heads: int = 2,
    head_width: int = 16,
    resolution: int = 64,
    distilled: bool = False,
) -> tuple[Any, Defaults]:
    """A tiny HunyuanImage 2.1 pipeline without a guider; a `distilled` one takes a guidance and the next timestep."""
    from diffusers import (
        AutoencoderKLHunyuanImage,
        FlowMatchEulerDiscreteScheduler,
        HunyuanImagePipeline,
        HunyuanImageTransformer2DModel,
    )

    tokenizer = languages.qwen_tokenizer([*components.WORDS, TEMPLATE], 2048)
    glyphs = ByT5Tokenizer(extra_ids=0)
    transformer = HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=blocks,
        num_single_layers=single_blocks,
        num_refiner_layers=1,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        patch_size=(2, 2),
        text_embed_dim=32,
        text_embed_2_dim=16,
        rope_axes_dim=(head_width // 2, head_width // 2),
        guidance_embeds=distilled,
        use_meanflow=distilled,
    )
    vae = AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32, 32),
        layers_per_block=1,
        spatial_compression_ratio=4,
        sample_size=resolution,
        scaling_factor=0.75,
    )
    pipe = HunyuanImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        vae=vae.eval(),
        text_encoder=languages.qwen_vl(tokenizer, width=32),
        tokenizer=tokenizer,
        text_encoder_2=components.t5_text_encoder(glyphs, width=16),
        tokenizer_2=glyphs,
        transformer=transformer.eval(),
    )
    return pipe, Defaults(steps=4, height=resolution, width=resolution)
