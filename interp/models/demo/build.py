"""The demo model's parts and folder: a stock Stable Diffusion 3 pipeline, sized for two CPU cores."""

from __future__ import annotations

import copy
import dataclasses
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

from interp.models import components, vocabulary
from interp.models.catalog import Defaults, write_defaults
from interp.models.demo import world
from interp.models.quiet import quiet

TEXT_TOKENS = 24  # length of the CLIP part and of the T5 part; the longest caption has 15


@dataclasses.dataclass(frozen=True)
class DemoSize:
    """Width and depth of a demo model."""

    blocks: int
    heads: int
    head_width: int = 32

    @property
    def width(self) -> int:
        """Channels of the residual stream."""
        return self.heads * self.head_width


DEFAULTS = Defaults(steps=20, settings={"max_sequence_length": TEXT_TOKENS}, vocabulary=frozenset(world.vocabulary()))
SIZES = {"base": DemoSize(blocks=8, heads=3), "small": DemoSize(blocks=8, heads=2)}


def build_vae() -> AutoencoderTiny:
    """An untrained VAE: 64x64 pictures to 16x16 latents of 8 channels."""
    return components.recipe("autoencoder", latent_channels=8, width=32)


@dataclasses.dataclass
class Denoiser:
    """The modules trained together: the transformer and its three text encoders."""

    transformer: SD3Transformer2DModel
    text_encoder: nn.Module
    text_encoder_2: nn.Module
    text_encoder_3: nn.Module
    tokenizer: Any
    tokenizer_3: Any

    def modules(self) -> nn.ModuleDict:
        """The trained modules under their names in the pipeline."""
        names = ("transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
        return nn.ModuleDict({name: getattr(self, name) for name in names})

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


def build_denoiser(size: DemoSize, seed: int = 0) -> Denoiser:
    """An untrained denoiser; AdaLN projections and the output layer start at zero, as in DiT (arXiv 2212.09748)."""
    torch.manual_seed(seed)
    words = world.vocabulary()
    clip, t5 = vocabulary.clip(words, TEXT_TOKENS), vocabulary.t5(words, TEXT_TOKENS)
    transformer = SD3Transformer2DModel(
        sample_size=world.SIZE // 4,
        patch_size=2,
        in_channels=8,
        out_channels=8,
        num_layers=size.blocks,
        num_attention_heads=size.heads,
        attention_head_dim=size.head_width,
        joint_attention_dim=size.width,
        caption_projection_dim=size.width,
        pooled_projection_dim=size.width,
        pos_embed_max_size=16,
    )
    for name, parameter in transformer.named_parameters():
        if name.startswith(("norm_out.linear", "proj_out")) or "norm1.linear" in name or "norm1_context.linear" in name:
            nn.init.zeros_(parameter)
    half = size.width // 2
    encoders = [components.recipe("clip", clip, width=half, projected=True) for _ in range(2)]
    return Denoiser(
        transformer=transformer,
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        text_encoder_3=components.recipe("t5", t5, width=size.width),
        tokenizer=clip,
        tokenizer_3=t5,
    )


def pipeline(vae: AutoencoderTiny, denoiser: Denoiser) -> StableDiffusion3Pipeline:
    """Assemble the parts as the stock diffusers pipeline."""
    return StableDiffusion3Pipeline(
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        tokenizer=denoiser.tokenizer,
        tokenizer_2=denoiser.tokenizer,
        tokenizer_3=denoiser.tokenizer_3,
        **denoiser.modules(),
    )


def save_folder(folder: Path, vae: AutoencoderTiny, denoiser: Denoiser) -> None:
    """Write the pipeline folder that `DiffusionPipeline.from_pretrained` loads: weights in bfloat16, loaded as float32."""
    halves = {name: copy.deepcopy(module).to(torch.bfloat16) for name, module in denoiser.modules().items()}
    half_vae = copy.deepcopy(vae).to(torch.bfloat16)
    with quiet():
        pipeline(half_vae, dataclasses.replace(denoiser, **halves)).save_pretrained(folder, safe_serialization=True)
    components.tidy_configs(folder)
    write_defaults(folder, DEFAULTS)
