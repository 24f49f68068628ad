"""Training of a demo model on the procedural world, transformer and text encoders together.

1. Train the VAE (`train_vae`), then draw the scenes and encode their pictures once.
2. Each step: captions with attributes left out at random, then the family's own loss (`denoisers`).
3. Keep an exponential moving average (EMA) of the weights, which is shipped.

Every random choice of a step comes from (seed, step). An interrupted training resumes with the same scenes, captions and noise.
Weights agree up to rounding, since matrix products differ in their last bits between processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from interp.base.errors import InputError
from interp.models.demo import train_vae, world
from interp.models.demo.denoisers import SIZES, Denoiser, save_folder
from interp.models.demo.shapes import FAMILIES
from interp.models.demo.train_vae import Report

SAVE_EVERY = 500  # steps


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """All settings that determine the trained weights."""

    family: str = "sd3"
    """`sd3` is the shipped model's; `flux` and `dit` are other shapes, trained alike."""
    size: str = "base"
    """`base` is the shipped model; `small` is narrower."""
    steps: int = 10_000
    batch_size: int = 64
    scenes: int = 24_000
    learning_rate: float = 1e-3
    warm_up: int = 300
    ema_decay: float = 0.999
    caption_drop: float = 0.1
    """Share of captions left empty, for classifier-free guidance."""
    attribute_drop: float = 0.1
    """Chance of each captioned attribute but the shape to be left out."""
    vae_steps: int = 2_400
    seed: int = 0
    keep: tuple[int, ...] = (250, 500, 1_000, 2_000, 4_000, 6_000, 8_000)
    """Steps whose EMA weights are kept as folders, in addition to the last."""


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Use deterministic sums inside, where the device has them: on a CPU, embedding gradients otherwise vary with threads."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@deterministic()
def train(folder: Path, plan: TrainingPlan, *, device: str = "cpu", report: Report = lambda *_: None) -> Path:
    """Train in `folder`, resuming from its state; returns the finished pipeline's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _same_plan(folder / "plan.json", plan)
    vae_folder = train_vae.train(folder, steps=plan.vae_steps, device=device, seed=plan.seed, report=report)
    vae = AutoencoderTiny.from_pretrained(vae_folder, local_files_only=True)
    FAMILIES[plan.family].fit(vae)
    scenes, latents = _latents(folder / "latents.npy", vae, plan)
    run = _Training(plan, device)
    state = folder / "state.pt"
    if state.exists():
        run.load(state)
    latents = latents.to(device)
    while run.step < plan.steps:
        loss = run.advance(scenes, latents)
        report("denoiser", run.step, plan.steps, loss)
        if run.step % SAVE_EVERY == 0 or run.step == plan.steps:
            run.save(state)
        if run.step in plan.keep:
            save_folder(folder / "checkpoints" / f"step-{run.step:06d}", vae, run.average())
    save_folder(folder / "model", vae, run.average())
    return folder / "model"


def _same_plan(path: Path, plan: TrainingPlan) -> None:
    text = json.dumps(dataclasses.asdict(plan), indent=2)
    if path.exists() and path.read_text() != text:
        raise InputError(f"out: {path.parent} holds a training with other settings ({path.name}); use another folder")
    path.write_text(text)


def _latents(path: Path, vae: AutoencoderTiny, plan: TrainingPlan) -> tuple[list[world.Scene], Tensor]:
    """The scenes and their scaled latents, (scene, channel, y, x) float16, made once and kept on disk."""
    if path.exists():
        return list(world.sample(plan.scenes, plan.seed + 1)), torch.from_numpy(np.load(path))
    scenes, pixels = train_vae.pictures(plan.scenes, plan.seed + 1)
    latents = (train_vae.encode(vae, pixels) - vae.config.shift_factor) * vae.config.scaling_factor
    np.save(path.with_suffix(".part.npy"), latents.half().numpy())
    os.replace(path.with_suffix(".part.npy"), path)
    return scenes, latents.half()


def captions(denoiser: Denoiser, scenes: list[world.Scene], plan: TrainingPlan, draw: np.random.Generator) -> list[str]:
    """A caption for each scene, some empty, some with attributes left out."""
    optional = [name for name in world.ATTRIBUTES if name != "shape"]
    said = []
    for scene in scenes:
        left_out = frozenset(name for name in optional if draw.random() < plan.attribute_drop)
        caption = denoiser.captioned(scene, left_out, int(draw.integers(2)))
        said.append("" if draw.random() < plan.caption_drop else caption)
    return said


class _Training:
    def __init__(self, plan: TrainingPlan, device: str) -> None:
        self.plan, self.device, self.step = plan, device, 0
        self.denoiser = _new(plan).to(device).train()
        self.optimizer = torch.optim.AdamW(
            self.denoiser.parameters(), plan.learning_rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True
        )
        self.ema = {name: tensor.detach().clone() for name, tensor in self.denoiser.named_parameters()}

    def advance(self, scenes: list[world.Scene], latents: Tensor) -> float:
        """One optimisation step; returns its loss."""
        plan, device = self.plan, self.device
        draw = np.random.default_rng([plan.seed, self.step])
        noise_source = torch.Generator().manual_seed(int(draw.integers(2**62)))
        index = draw.integers(len(scenes), size=plan.batch_size)
        said = captions(self.denoiser, [scenes[i] for i in index], plan, draw)
        prompts = {name: values.to(device) for name, values in self.denoiser.inputs(said).items()}
        clean = latents[torch.from_numpy(index).to(latents.device)].float()
        for group in self.optimizer.param_groups:
            group["lr"] = plan.learning_rate * _schedule(self.step, plan)
        # the CPU's fused attention has a slow backward pass: half of a step's time, a sixth with plain matrix products
        with sdpa_kernel([SDPBackend.MATH]), torch.autocast(device, torch.bfloat16):
            loss = self.denoiser.loss(clean, prompts, noise_source)
            loss.backward()  # type: ignore[no-untyped-call]
        weights = dict(self.denoiser.named_parameters())
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        decay = min(plan.ema_decay, (1 + self.step) / (10 + self.step))
        names = list(self.ema)
        torch._foreach_lerp_([self.ema[n] for n in names], [weights[n].detach() for n in names], 1 - decay)
        return float(loss.item())

    def average(self) -> Denoiser:
        """A denoiser that holds the averaged weights, on the CPU."""
        averaged = _new(self.plan)
        averaged.load_state_dict(self.ema, strict=False)  # it holds parameters alone
        return averaged

    def save(self, path: Path) -> None:
        """Write the whole state; the file is replaced atomically."""
        state: dict[str, Any] = {"step": self.step, "weights": self.denoiser.state_dict(), "ema": self.ema}
        torch.save(state | {"optimizer": self.optimizer.state_dict()}, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def load(self, path: Path) -> None:
        """Read a state written by `save`."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.denoiser.load_state_dict(state["weights"], strict=False)
        self.ema, self.step = state["ema"], state["step"]
        self.optimizer.load_state_dict(state["optimizer"])


def _new(plan: TrainingPlan) -> Denoiser:
    """The untrained denoiser of a plan."""
    return FAMILIES[plan.family](SIZES[plan.size], plan.seed)


def _schedule(step: int, plan: TrainingPlan) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < plan.warm_up:
        return (step + 1) / plan.warm_up
    progress = (step - plan.warm_up) / max(plan.steps - plan.warm_up, 1)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress))
