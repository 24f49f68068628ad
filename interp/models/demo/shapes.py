"""The demo models by family: Stable Diffusion 3's shape, FLUX.1's, DiT's."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor, nn

from interp.models import tiny, vocabulary
from interp.models.catalog import Defaults
from interp.models.demo import world
from interp.models.demo.denoisers import BLOCKS, HEAD_WIDTH, LATENTS, STEPS, TEXT_TOKENS, Denoiser, Inputs, token_ids


class SD3(Denoiser):
    """Stable Diffusion 3's shape: joint blocks, two CLIP encoders and a T5."""

    def build(self, heads: int, width: int) -> None:
        """Make the modules."""
        words = world.vocabulary()
        self.tokenizer, self.tokenizer_3 = vocabulary.clip(words, TEXT_TOKENS), vocabulary.t5(words, TEXT_TOKENS)
        self.add_transformer(
            SD3Transformer2DModel(
                sample_size=world.SIZE // 4,
                patch_size=2,
                in_channels=LATENTS,
                out_channels=LATENTS,
                num_layers=BLOCKS,
                num_attention_heads=heads,
                attention_head_dim=HEAD_WIDTH,
                joint_attention_dim=width,
                caption_projection_dim=width,
                pooled_projection_dim=width,
                pos_embed_max_size=16,
            )
        )
        self.text_encoder = tiny.recipe("clip", self.tokenizer, width=width // 2, projected=True)
        self.text_encoder_2 = tiny.recipe("clip", self.tokenizer, width=width // 2, projected=True)
        self.text_encoder_3 = tiny.recipe("t5", self.tokenizer_3, width=width)

    def inputs(self, captions: list[str]) -> Inputs:
        """The captions as tensors on the CPU."""
        return {"clip": token_ids(self.tokenizer, captions), "t5": token_ids(self.tokenizer_3, captions)}

    def encode(self, clip: Tensor, t5: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the pipeline's `encode_prompt`: states (batch, token, channel) and pooled text (batch, channel)."""
        outputs = [encoder(clip, output_hidden_states=True) for encoder in (self.text_encoder, self.text_encoder_2)]
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
        t5_states = self.text_encoder_3(t5)[0]
        states = nn.functional.pad(states, (0, t5_states.shape[-1] - states.shape[-1]))
        return torch.cat([states, t5_states], dim=-2), pooled

    def predict(self, noisy: Tensor, t: Tensor, prompts: Inputs) -> Tensor:
        """The predicted velocity, (batch, channel, y, x)."""
        states, pooled = self.encode(**prompts)
        guess: Tensor = self.transformer(
            hidden_states=noisy, encoder_hidden_states=states, pooled_projections=pooled, timestep=1000.0 * t
        ).sample
        return guess

    def pipeline(self, vae: AutoencoderTiny) -> StableDiffusion3Pipeline:
        """The parts as a stock `StableDiffusion3Pipeline`."""
        return StableDiffusion3Pipeline(
            vae=vae,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
            tokenizer=self.tokenizer,
            tokenizer_2=self.tokenizer,
            tokenizer_3=self.tokenizer_3,
            **dict(self.named_children()),
        )


class Flux(Denoiser):
    """FLUX.1's shape: double blocks, then single ones; no embedded guidance; a pooled CLIP and a T5."""

    defaults = dataclasses.replace(Denoiser.defaults, height=world.SIZE, width=world.SIZE)  # not the pipeline's 1,024
    zeroed = (*Denoiser.zeroed, "norm.linear")

    def build(self, heads: int, width: int) -> None:
        """Make the modules."""
        words = world.vocabulary()
        self.tokenizer, self.tokenizer_2 = vocabulary.clip(words, TEXT_TOKENS), vocabulary.t5(words, TEXT_TOKENS)
        self.add_transformer(
            FluxTransformer2DModel(
                patch_size=1,
                in_channels=4 * LATENTS,  # two by two latents in a token
                num_layers=BLOCKS // 2,
                num_single_layers=BLOCKS // 2,
                num_attention_heads=heads,
                attention_head_dim=HEAD_WIDTH,
                joint_attention_dim=width,
                pooled_projection_dim=width // 2,
                guidance_embeds=False,
                axes_dims_rope=(HEAD_WIDTH // 4, HEAD_WIDTH * 3 // 8, HEAD_WIDTH * 3 // 8),
            )
        )
        self.text_encoder = tiny.recipe("clip", self.tokenizer, width=width // 2)
        self.text_encoder_2 = tiny.recipe("t5", self.tokenizer_2, width=width)

    def inputs(self, captions: list[str]) -> Inputs:
        """The captions as tensors on the CPU."""
        return {"clip": token_ids(self.tokenizer, captions), "t5": token_ids(self.tokenizer_2, captions)}

    def encode(self, clip: Tensor, t5: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the pipeline's `encode_prompt`: states (batch, token, channel) and pooled text (batch, channel)."""
        return self.text_encoder_2(t5)[0], self.text_encoder(clip).pooler_output

    def predict(self, noisy: Tensor, t: Tensor, prompts: Inputs) -> Tensor:
        """The predicted velocity, (batch, channel, y, x)."""
        states, pooled = self.encode(**prompts)
        side = noisy.shape[-1] // 2
        places = FluxPipeline._prepare_latent_image_ids(len(noisy), side, side, noisy.device, noisy.dtype)
        guess = self.transformer(
            hidden_states=FluxPipeline._pack_latents(noisy, *noisy.shape),
            encoder_hidden_states=states,
            pooled_projections=pooled,
            timestep=t,
            img_ids=places,
            txt_ids=torch.zeros(states.shape[1], 3, device=noisy.device, dtype=noisy.dtype),
        ).sample
        size = noisy.shape[-1]
        unpacked: Tensor = FluxPipeline._unpack_latents(guess, size, size, 1)
        return unpacked

    def pipeline(self, vae: AutoencoderTiny) -> FluxPipeline:
        """The parts as a stock `FluxPipeline`."""
        return FluxPipeline(
            vae=vae,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
            tokenizer=self.tokenizer,
            tokenizer_2=self.tokenizer_2,
            **dict(self.named_children()),
        )


class DiT(Denoiser):
    """DiT's shape: class-conditional; a class is a shape in a colour. It predicts the noise of DDPM's linear schedule."""

    defaults = Defaults(steps=STEPS)
    classes: ClassVar[tuple[str, ...]] = tuple(f"{colour} {shape}" for shape in world.SHAPES for colour in world.COLOURS)
    null: ClassVar[int] = 1000
    """The class of no caption: `DiTPipeline` hardcodes it, so the model has a thousand classes and names the first ones."""

    def build(self, heads: int, width: int) -> None:
        """Make the modules."""
        self.add_transformer(
            DiTTransformer2DModel(
                sample_size=world.SIZE // 4,
                patch_size=2,
                in_channels=LATENTS,
                out_channels=LATENTS,
                num_layers=BLOCKS,
                num_attention_heads=heads,
                attention_head_dim=HEAD_WIDTH,
                num_embeds_ada_norm=self.null,
            )
        )
        self.scheduler = DDIMScheduler(clip_sample=False)

    def train(self, mode: bool = True) -> DiT:
        """Each block would drop classes by itself: captions are left out of whole samples instead, see `train.captions`."""
        return super().train(False)

    @staticmethod
    def fit(vae: AutoencoderTiny) -> None:
        """Take the shift out of the VAE: `DiTPipeline` only scales latents."""
        vae.register_to_config(shift_factor=0.0)

    def captioned(self, scene: world.Scene, left_out: frozenset[str], order: int) -> str:
        """The scene's class."""
        return f"{scene.colour} {scene.shape}"

    def inputs(self, captions: list[str]) -> Inputs:
        """The captions as tensors on the CPU."""
        return {"class_labels": torch.tensor([self.classes.index(one) if one else self.null for one in captions])}

    def loss(self, clean: Tensor, prompts: Inputs, source: torch.Generator) -> Tensor:
        """DDPM's loss of the predicted noise at a uniform timestep (arXiv 2006.11239)."""
        noise = torch.randn(clean.shape, generator=source).to(clean.device)
        steps = torch.randint(self.scheduler.config.num_train_timesteps, (len(clean),), generator=source).to(clean.device)
        guess = self.transformer(self.scheduler.add_noise(clean, noise, steps), timestep=steps, **prompts).sample
        error: Tensor = (guess.float() - noise).square().mean()
        return error

    def pipeline(self, vae: AutoencoderTiny) -> DiTPipeline:
        """The parts as a stock `DiTPipeline`."""
        pipe = DiTPipeline(transformer=self.transformer, vae=vae, scheduler=self.scheduler)
        pipe.register_to_config(id2label={str(number): name for number, name in enumerate(self.classes)})
        return pipe


FAMILIES: dict[str, type[Denoiser]] = {"sd3": SD3, "flux": Flux, "dit": DiT}
