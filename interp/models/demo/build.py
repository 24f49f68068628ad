"""The demo model's parts and folder: a stock Stable Diffusion 3 pipeline, sized for two CPU cores."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor, nn

from interp.models import tiny, vocabulary
from interp.models.catalog import Defaults, write_defaults
from interp.models.demo import world
from interp.models.quiet import quiet

TEXT_TOKENS = 24  # length of the CLIP part and of the T5 part; the longest caption has 15


DEFAULTS = Defaults(steps=20, settings={"max_sequence_length": TEXT_TOKENS}, vocabulary=frozenset(world.vocabulary()))
BLOCKS, HEAD_WIDTH = 8, 32
SIZES = {"base": 3, "small": 2}
"""Attention heads by size."""


def build_vae() -> AutoencoderTiny:
    """An untrained VAE: 64x64 pictures to 16x16 latents of 8 channels."""
    return tiny.recipe("autoencoder", latent_channels=8, width=32)


class Denoiser(nn.Module):
    """The modules trained together: the transformer and its three text encoders, under their names in the pipeline.

    AdaLN projections and the output layer start at zero, as in DiT (arXiv 2212.09748).
    """

    def __init__(self, heads: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        words, width = world.vocabulary(), heads * HEAD_WIDTH
        self.tokenizer, self.tokenizer_3 = vocabulary.clip(words, TEXT_TOKENS), vocabulary.t5(words, TEXT_TOKENS)
        self.transformer = SD3Transformer2DModel(
            sample_size=world.SIZE // 4,
            patch_size=2,
            in_channels=8,
            out_channels=8,
            num_layers=BLOCKS,
            num_attention_heads=heads,
            attention_head_dim=HEAD_WIDTH,
            joint_attention_dim=width,
            caption_projection_dim=width,
            pooled_projection_dim=width,
            pos_embed_max_size=16,
        )
        for name, parameter in self.transformer.named_parameters():
            if name.startswith(("norm_out.linear", "proj_out")) or "norm1.linear" in name or "norm1_context.linear" in name:
                nn.init.zeros_(parameter)
        self.text_encoder = tiny.recipe("clip", self.tokenizer, width=width // 2, projected=True)
        self.text_encoder_2 = tiny.recipe("clip", self.tokenizer, width=width // 2, projected=True)
        self.text_encoder_3 = tiny.recipe("t5", self.tokenizer_3, width=width)

    def tokens(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids for CLIP and for T5: (batch, token) each."""
        settings: dict[str, Any] = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        clip = self.tokenizer(captions, max_length=TEXT_TOKENS, **settings).input_ids
        t5 = self.tokenizer_3(captions, max_length=TEXT_TOKENS, **settings).input_ids
        return clip, t5

    def encode(self, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the pipeline's `encode_prompt`: states (batch, token, channel) and pooled text (batch, channel)."""
        outputs = [encoder(clip_ids, output_hidden_states=True) for encoder in (self.text_encoder, self.text_encoder_2)]
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
        t5_states = self.text_encoder_3(t5_ids)[0]
        states = nn.functional.pad(states, (0, t5_states.shape[-1] - states.shape[-1]))
        return torch.cat([states, t5_states], dim=-2), pooled


def pipeline(vae: AutoencoderTiny, denoiser: Denoiser) -> StableDiffusion3Pipeline:
    """Assemble the parts as the stock diffusers pipeline."""
    return StableDiffusion3Pipeline(
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        tokenizer=denoiser.tokenizer,
        tokenizer_2=denoiser.tokenizer,
        tokenizer_3=denoiser.tokenizer_3,
        **dict(denoiser.named_children()),
    )


def save_folder(folder: Path, vae: AutoencoderTiny, denoiser: Denoiser) -> None:
    """Write the pipeline folder that `DiffusionPipeline.from_pretrained` loads: weights in bfloat16, loaded as float32."""
    with quiet():
        pipe = pipeline(copy.deepcopy(vae), copy.deepcopy(denoiser)).to(torch.bfloat16)
        pipe.save_pretrained(folder, safe_serialization=True)
    tiny.tidy_configs(folder)
    write_defaults(folder, DEFAULTS)
