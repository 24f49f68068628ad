"""Decode latents and encode pictures with a pipeline's own autoencoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from interp.models.families.outputs import RGB
from interp.models.families.pipeline import PipelineSpec


def decode(pipe: Any, spec: PipelineSpec, latents: Tensor, height: int, width: int) -> Tensor:
    """Decode the scheduler's latents, (row, ...), to pictures (row, y, x, rgb) float in 0..1, without transparency."""
    spatial = spec.to_autoencoder(pipe, spec.unpack(pipe, latents.to(pipe.device), height, width))
    with torch.no_grad():
        pictures: Tensor = pipe.vae.decode(spatial.to(pipe.vae.dtype), return_dict=False)[0]
    if pictures.ndim == 5:  # of a video, the middle frame
        pictures = pictures[:, :, pictures.shape[2] // 2]
    return (pictures[:, :RGB].float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu()


def still_settings(pipe: Any, spec: PipelineSpec) -> dict[str, int]:
    """Settings that match the output of `encode`: one frame for a video pipeline."""
    return {"num_frames": 1} if "num_frames" in spec.settings(pipe) else {}


def encode(pipe: Any, spec: PipelineSpec, pictures: Tensor) -> Tensor:
    """Encode pictures (row, y, x, rgb) in 0..1 to the scheduler's latents: the posterior's mode, if there is one. They are
    opaque for an autoencoder of pictures with transparency.
    """
    given = (2 * pictures.permute(0, 3, 1, 2) - 1).to(pipe.device, pipe.vae.dtype)
    if getattr(pipe.vae.config, "in_channels", RGB) == RGB + 1:
        given = torch.cat([given, torch.ones_like(given[:, :1])], dim=1)
    given = given.unsqueeze(2) if spec.moving else given
    with torch.no_grad():
        encoded = pipe.vae.encode(given)
    spatial = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents  # tiny ones have no posterior
    packed: Tensor = spec.pack(pipe, spec.from_autoencoder(pipe, spatial))
    return packed
