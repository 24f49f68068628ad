"""A tiny random HunyuanVideo pipeline: videos, text from a language model under the pipeline's template, and pooled text."""

from __future__ import annotations

from typing import Any

from interp.models import components, languages
from interp.models.catalog import Defaults

TEXT_TOKENS = 8
CLIP_TOKENS = 77  # the pipeline pads its pooled text to this length
# with the template's words and these, a prompt starts at the 96th token, where the pipeline expects it
MARKS = ("<|start_header_id|>", "<|start_header_id|>system", "<|end_header_id|>", "<|eot_id|>")


def hunyuanvideo(
    *,
    blocks: int = 2,
    single_blocks: int = 3,
    heads: int = 2,
    head_width: int = 16,
    guidance_embeds: bool = True,
    resolution: int = 64,
    frames: int = 5,
) -> tuple[Any, Defaults]:
    """A tiny HunyuanVideo pipeline: four pictures per latent frame."""
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoPipeline,
        HunyuanVideoTransformer3DModel,
    )

    tokenizer = template_tokenizer()
    clip = components.clip_tokenizer(components.WORDS, CLIP_TOKENS)
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        num_layers=blocks,
        num_single_layers=single_blocks,
        num_refiner_layers=1,
        guidance_embeds=guidance_embeds,
        text_embed_dim=32,
        pooled_projection_dim=16,
        rope_axes_dim=(head_width // 4, head_width * 3 // 8, head_width * 3 // 8),
    )
    vae = AutoencoderKLHunyuanVideo(latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4)
    pipe = HunyuanVideoPipeline(
        text_encoder=llama(tokenizer, width=32),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        vae=vae.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=components.clip_text_encoder(clip, width=16, projection=None),
        tokenizer_2=clip,
    )
    settings = {"max_sequence_length": TEXT_TOKENS, "num_frames": frames}
    return pipe, Defaults(steps=4, height=resolution, width=resolution, settings=settings)


def template_tokenizer() -> Any:
    """A tokenizer in which every word of the pipeline's template is one token, padded on the right."""
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE

    template = str(DEFAULT_PROMPT_TEMPLATE["template"])
    for mark in ("{}", *MARKS):
        template = template.replace(mark, " ")
    tokenizer = languages.qwen_tokenizer([*components.WORDS, template], 512)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
    return tokenizer


def llama(tokenizer: Any, *, width: int, layers: int = 3) -> Any:
    """A Llama model, `width` wide, random weights; the pipeline reads its states two layers before the last."""
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return LlamaModel(config).eval()
