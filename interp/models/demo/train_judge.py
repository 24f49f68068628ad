"""Train the demo judge on procedural pictures, half of them reconstructed by the demo VAE, and measure its accuracy on held-out
ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from scipy import ndimage
from torch import Tensor, nn

from interp.models.demo import world
from interp.models.demo.judge import SEMANTIC, Judge, Net, as_input
from interp.models.demo.train_vae import Report, encode
from interp.store.schema import Array

SCENES, BATCH, RATE = 20_000, 64, 2e-3
HELD_OUT_SEED, HELD_OUT = 987_654, 2_000
BLURS, NOISES = (0.5, 1.0, 1.5, 2.0, 3.0), (0.05, 0.1, 0.2, 0.3)  # pixels; of the range 0..1


def train(out: Path, vae: AutoencoderTiny, *, steps: int = 4_000, seed: int = 0, report: Report = lambda *_: None) -> Judge:
    """Train a judge and write judge.safetensors and accuracy.json to `out`."""
    torch.manual_seed(seed)
    scenes = list(world.sample(SCENES, seed + 1))
    pictures = np.stack([scene.picture() for scene in scenes])
    second = through_vae(vae, pictures)
    truth = {name: torch.tensor([values.index(getattr(s, name)) for s in scenes]) for name, values in world.ATTRIBUTES.items()}
    net = Net().train()
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        places = np.random.default_rng((seed, step)).integers(0, SCENES, BATCH)
        batch = np.where((np.arange(BATCH) % 2 == 0)[:, None, None, None], pictures[places], second[places])
        loss = _loss(net(as_input(batch))[1], {name: values[places] for name, values in truth.items()})
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        report("judge", step + 1, steps, loss.item())
    judge = Judge(net)
    out.mkdir(parents=True, exist_ok=True)
    partial = out / "judge.part"
    judge.save(partial)
    os.replace(partial, out / "judge.safetensors")
    (out / "accuracy.json").write_text(json.dumps(accuracy(judge, vae), indent=1) + "\n", encoding="utf-8")
    return judge


def _loss(logits: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
    """Sum of the attributes' cross entropies."""
    each = [nn.functional.cross_entropy(values, truth[name], label_smoothing=0.02) for name, values in logits.items()]
    return torch.stack(each).sum()


@torch.no_grad()
def through_vae(vae: AutoencoderTiny, pictures: Array) -> Array:
    """Pictures reconstructed by the VAE, uint8."""
    found = []
    for start in range(0, len(pictures), 100):
        pixels = torch.from_numpy(pictures[start : start + 100]).permute(0, 3, 1, 2)
        decoded = vae.decode(encode(vae, pixels)).sample
        found.append(((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(found)


def accuracy(judge: Judge, vae: AutoencoderTiny) -> dict[str, Any]:
    """Held-out accuracy by change of the pictures: of each attribute, and the mean over the semantic ones."""
    scenes = list(world.sample(HELD_OUT, HELD_OUT_SEED))
    pictures = np.stack([scene.picture() for scene in scenes])
    noise = np.random.default_rng(HELD_OUT_SEED).standard_normal(pictures.shape)
    changed: dict[str, Array] = {"as they are": pictures, "through the VAE": through_vae(vae, pictures)}
    for pixels in BLURS:
        blurred = ndimage.gaussian_filter(pictures.astype(np.float32), pixels, axes=(1, 2))
        changed[f"blurred, {pixels:g} pixels"] = blurred.round().astype(np.uint8)
    for share in NOISES:
        changed[f"noise, {share:g}"] = (pictures + 255 * share * noise).clip(0, 255).round().astype(np.uint8)
    rows = {}
    for name, stack in changed.items():
        verdicts = judge(stack)
        right = {key: verdicts.right(key, [getattr(scene, key) for scene in scenes]) for key in world.ATTRIBUTES}
        each = {key: float(values.mean()) for key, values in right.items()}
        rows[name] = {**each, "semantics": float(np.mean([each[key] for key in SEMANTIC]))}
    return {"held out": HELD_OUT, "pictures": rows}
