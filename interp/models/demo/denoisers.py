"""What the demo models of all families have in common: the modules that are trained, their loss, their folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderTiny,
    DiffusionPipeline,
)
from torch import Tensor, nn

from interp.models import tiny
from interp.models.catalog import Defaults, write_defaults
from interp.models.demo import world
from interp.models.quiet import quiet

TEXT_TOKENS = 24  # length of the CLIP part and of the T5 part; the longest caption has 15
STEPS, BLOCKS, HEAD_WIDTH, LATENTS = 20, 8, 32, 8
SIZES = {"base": 3, "small": 2}
"""Attention heads by size."""
Inputs = dict[str, Tensor]
"""The prompts of a batch, as tensors: (batch, ...) each."""


class Denoiser(nn.Module):
    """The modules trained together, under their names in the pipeline: the transformer, and text encoders where it reads text.

    AdaLN projections and the output layer start at zero, as in DiT (arXiv 2212.09748).
    """

    defaults: ClassVar[Defaults] = Defaults(
        steps=STEPS, settings={"max_sequence_length": TEXT_TOKENS}, vocabulary=frozenset(world.vocabulary())
    )
    zeroed: ClassVar[tuple[str, ...]] = ("norm1.linear", "norm1_context.linear")
    """Parts of the names of the blocks' AdaLN projections."""
    transformer: nn.Module

    def __init__(self, heads: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.build(heads, heads * HEAD_WIDTH)

    def build(self, heads: int, width: int) -> None:
        """Make the modules."""
        raise NotImplementedError

    @staticmethod
    def fit(vae: AutoencoderTiny) -> None:
        """Change the VAE's configuration to what the pipeline reads."""

    def add_transformer(self, transformer: nn.Module) -> None:
        """Take a new transformer, with zeros where training starts from the identity."""
        for name, parameter in transformer.named_parameters():
            if name.startswith(("norm_out.linear", "proj_out")) or any(part in name for part in self.zeroed):
                nn.init.zeros_(parameter)
        self.transformer = transformer

    def inputs(self, captions: list[str]) -> Inputs:
        """The captions as tensors on the CPU; "" stands for no caption."""
        raise NotImplementedError

    def captioned(self, scene: world.Scene, left_out: frozenset[str], order: int) -> str:
        """The scene's caption for this model, without some attributes, in one of two phrasings."""
        return scene.caption(left_out, order=order)

    def loss(self, clean: Tensor, prompts: Inputs, source: torch.Generator) -> Tensor:
        """Rectified flow's loss with t = sigmoid(normal) (arXiv 2209.03003; the sampling of t as in SD3, arXiv 2403.03206)."""
        noise = torch.randn(clean.shape, generator=source).to(clean.device)
        t = torch.sigmoid(torch.randn(len(clean), generator=source)).to(clean.device)
        noisy, target = flow_pair(clean, noise, t)
        return (self.predict(noisy, t, prompts).float() - target).square().mean()

    def predict(self, noisy: Tensor, t: Tensor, prompts: Inputs) -> Tensor:
        """The transformer's prediction for latents (batch, channel, y, x) at times t in 0..1."""
        raise NotImplementedError

    def pipeline(self, vae: AutoencoderTiny) -> DiffusionPipeline:
        """The parts as the family's stock pipeline."""
        raise NotImplementedError


def flow_pair(clean: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Rectified flow's input and target at time t: x_t = (1 - t) x0 + t noise, and noise - x0 (arXiv 2209.03003)."""
    t = t.view(-1, 1, 1, 1)
    return (1 - t) * clean + t * noise, noise - clean


def token_ids(tokenizer: Any, captions: list[str]) -> Tensor:
    """Padded token ids: (batch, token)."""
    ids: Tensor = tokenizer(
        captions, max_length=TEXT_TOKENS, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def build_vae() -> AutoencoderTiny:
    """An untrained VAE: 64x64 pictures to 16x16 latents of 8 channels."""
    return tiny.recipe("autoencoder", latent_channels=LATENTS, width=32)


def save_folder(folder: Path, vae: AutoencoderTiny, denoiser: Denoiser) -> None:
    """Write the pipeline folder that `DiffusionPipeline.from_pretrained` loads: weights in bfloat16, loaded as float32."""
    with quiet():
        pipe = copy.deepcopy(denoiser).pipeline(copy.deepcopy(vae)).to(torch.bfloat16)
        pipe.save_pretrained(folder, safe_serialization=True)
    tiny.tidy_configs(folder)
    write_defaults(folder, denoiser.defaults)
