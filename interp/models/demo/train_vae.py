"""Training of the demo model's VAE: L1 + gradient L1 on procedural pictures, a little noise on the latents."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from interp.models.demo import world
from interp.models.demo.denoisers import build_vae

Report = Callable[[str, int, int, float], None]
"""What is trained, the step, all steps, the loss."""


def pictures(count: int, seed: int) -> tuple[list[world.Scene], Tensor]:
    """`count` scenes and their pictures, (picture, rgb, y, x) uint8."""
    scenes = list(world.sample(count, seed))
    stack = np.stack([scene.picture() for scene in scenes])
    return scenes, torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous()


def as_input(pixels: Tensor) -> Tensor:
    """uint8 pictures in the VAE's range, -1..1 float32."""
    return pixels.float() / 127.5 - 1.0


def gradient_l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of the two pictures' finite differences, along both axes."""
    across = (a.diff(dim=-1) - b.diff(dim=-1)).abs().mean()
    return across + (a.diff(dim=-2) - b.diff(dim=-2)).abs().mean()


def train(folder: Path, *, steps: int, device: str, seed: int = 0, report: Report = lambda *_: None) -> Path:
    """Train and save under `folder/vae`; returns that folder, immediately if it exists."""
    target = folder / "vae"
    if (target / "config.json").exists():
        return target
    torch.manual_seed(seed)
    vae = build_vae().to(device).train()
    _, pixels = pictures(6000, seed)
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        batch = as_input(pixels[torch.randint(len(pixels), (32,))]).to(device)
        with torch.autocast(device, torch.bfloat16):
            latents = vae.encode(batch).latents
            decoded = vae.decode(latents + 0.03 * torch.randn_like(latents)).sample
        decoded = decoded.float()
        loss = (decoded - batch).abs().mean() + 0.5 * gradient_l1(decoded, batch)
        (loss + 1e-4 * latents.float().square().mean()).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        report("vae", step, steps, loss.item())
    vae = vae.eval().cpu()
    normalise(vae, pixels[:2000])
    vae.save_pretrained(folder / "vae.part")
    os.replace(folder / "vae.part", target)
    return target


@torch.no_grad()
def normalise(vae: AutoencoderTiny, pixels: Tensor) -> None:
    """Set the VAE's shift and scale from measured latents, so that the transformer sees mean 0 and deviation 1."""
    latents = encode(vae, pixels)
    vae.register_to_config(scaling_factor=float(1.0 / latents.std()), shift_factor=float(latents.mean()))


@torch.no_grad()
def encode(vae: AutoencoderTiny, pixels: Tensor) -> Tensor:
    """Unscaled latents of uint8 pictures: (picture, channel, y, x) float32."""
    return torch.cat([vae.encode(as_input(part)).latents for part in torch.split(pixels, 100)])
