"""The numbers of the demo model's card: what it draws, and its massive channels.

    python tests/campaigns/demo_card.py FOLDER_OR_ALIAS [--prompts 200]

*Drawn as asked*: for each captioned attribute, the asked scene is rendered with every value that attribute can take (the
others as asked, eight phases of the texture, no grain); the picture passes when the asked value's rendering is nearest in mean
squared error. Controls: the same on real pictures of the world, and on their VAE reconstructions. Chance is one over the
number of values.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import interp
from interp.models.demo import denoisers, train_vae, world


def template(scene: world.Scene) -> np.ndarray:
    return dataclasses.replace(scene, grain=0.0, speckle=0.0, softness=1.5).picture() / 255.0


def nearest(scene: world.Scene, picture: np.ndarray, attribute: str) -> str:
    """The value of one attribute whose rendering is nearest to the picture."""

    def error(value: str) -> float:
        changed = [dataclasses.replace(scene, **{attribute: value}, phase=phase / 8) for phase in range(8)]
        return min(float(np.square(template(one) - picture).mean()) for one in changed)

    return min(world.ATTRIBUTES[attribute], key=error)


def accuracies(scenes: list[world.Scene], pictures: np.ndarray) -> dict[str, float]:
    pairs = list(zip(scenes, pictures, strict=True))
    return {
        name: round(float(np.mean([nearest(s, p, name) == getattr(s, name) for s, p in pairs])), 3) for name in world.ATTRIBUTES
    }


def drawn(pipe: Any, scenes: list[world.Scene], guidance_scale: float) -> np.ndarray:
    batches = []
    for start in range(0, len(scenes), 25):
        part = scenes[start : start + 25]
        batches.append(
            pipe(
                [scene.caption() for scene in part],
                guidance_scale=guidance_scale,
                num_inference_steps=20,
                max_sequence_length=denoisers.TEXT_TOKENS,
                generator=[torch.Generator().manual_seed(start + index) for index in range(len(part))],
                output_type="np",
            ).images
        )
    return np.concatenate(batches)


def reconstructed(vae: Any, scenes: list[world.Scene]) -> np.ndarray:
    pixels = torch.from_numpy(np.stack([scene.picture() for scene in scenes])).permute(0, 3, 1, 2)
    with torch.no_grad():
        decoded = vae.decode(train_vae.encode(vae, pixels)).sample
    return decoded.add(1).div(2).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def massive(model: interp.Model) -> dict[str, Any]:
    """Per block, image stream: the top channels of mean |hidden| over tokens, steps and prompts, and top over median."""
    prompts = interp.read_prompts(Path(world.__file__).parent / "prompts.txt")
    with tempfile.TemporaryDirectory() as folder:
        run = interp.trace(model, prompts, out=Path(folder) / "card.zarr", steps=20)
        size = run.stats["mean_abs"].sel(stream="image").mean(("prompt", "step")).to_numpy()
        first, last = (run.stats["mean_abs"].sel(stream="image").isel(step=step).mean("prompt").to_numpy() for step in (0, -1))
    table = {}
    for block, values in enumerate(size):
        top = np.argsort(values)[::-1][:3]
        table[block] = {
            "top": [int(channel) for channel in top],
            "over_median": [round(float(values[channel] / np.median(values)), 1) for channel in top],
            "first_step": round(float(first[block, top[0]]), 2),
            "last_step": round(float(last[block, top[0]]), 2),
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=200)
    chosen = parser.parse_args()
    model = interp.load(chosen.model)
    model.pipe.set_progress_bar_config(disable=True)
    scenes = list(world.sample(chosen.prompts, seed=2024))
    real = np.stack([scene.picture() for scene in scenes]) / 255.0
    report = {
        "real pictures": accuracies(scenes, real),
        "VAE reconstructions": accuracies(scenes, reconstructed(model.pipe.vae, scenes)),
        "drawn, no guidance": accuracies(scenes, drawn(model.pipe, scenes, 1.0)),
        "drawn, guidance 4": accuracies(scenes, drawn(model.pipe, scenes, 4.0)),
        "chance": {name: round(1 / len(values), 3) for name, values in world.ATTRIBUTES.items()},
    }
    print(json.dumps({"prompts": chosen.prompts, "accuracy": report, "massive": massive(model)}, indent=1))


if __name__ == "__main__":
    main()
