"""Draws docs/pictures/ from real runs: `python docs/make_pictures.py cache/demo.zarr`."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import matplotlib as mpl
import numpy as np

import interp

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent / "pictures"


def overview(run: interp.Run) -> None:
    """Traced pictures above; below, the mean size of every channel in every block, and how it changes over the steps."""
    pictures = run.images["image"].to_numpy()
    size = run.stats["mean_abs"].sel(stream="image")
    channels = size.mean(("prompt", "step")).to_numpy()
    figure = plt.figure(figsize=(12, 6.1), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[0.88, 1.15])
    axes = top.subplots(1, len(pictures))
    for axis, picture, text in zip(axes, pictures, run.prompts, strict=True):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(textwrap.fill(text, 20), fontsize=7.5)
        axis.axis("off")
    left, right = bottom.subplots(1, 2, gridspec_kw={"width_ratios": [1.35, 1]})
    image = left.imshow(channels, aspect="auto", cmap="viridis", interpolation="nearest")
    left.set(xlabel="channel", ylabel="block", title="mean |hidden| over image tokens, steps and prompts")
    bottom.colorbar(image, ax=left, label="mean |hidden|")
    massive = int(channels[-1].argmax())
    over_steps = size.mean("prompt").to_numpy()
    for block, colour in zip(range(len(channels)), plt.cm.viridis(np.linspace(0, 0.9, len(channels))), strict=True):
        right.plot(size["timestep"], over_steps[:, block, massive], color=colour, label=f"block {block}")
    right.plot(size["timestep"], np.median(over_steps[:, -1], axis=-1), "k--", label="median channel, last block")
    right.invert_xaxis()
    right.set(xlabel="timestep (sampling runs to the right)", ylabel="mean |hidden|", title=f"channel {massive} over sampling")
    right.legend(fontsize=7, ncols=2)
    figure.savefig(HERE / "overview.png", dpi=110)


def contact_sheet() -> None:
    """What the demo model draws, guided at 4, next to real pictures of its world with the same captions."""
    import torch

    from interp.models.demo import denoisers, world

    model = interp.load("demo")
    scenes = list(world.sample(24, seed=7))
    drawn = model.pipe(
        [scene.caption() for scene in scenes],
        guidance_scale=4.0,
        num_inference_steps=20,
        max_sequence_length=denoisers.TEXT_TOKENS,
        generator=[torch.Generator().manual_seed(index) for index in range(len(scenes))],
    ).images
    figure, axes = plt.subplots(6, 8, figsize=(12, 10.6), layout="constrained")
    for index, (scene, picture) in enumerate(zip(scenes, drawn, strict=True)):
        row, column = divmod(index, 4)
        for offset, (pixels, kind) in enumerate(((scene.picture(), "real"), (np.asarray(picture), "drawn"))):
            axis = axes[row, 2 * column + offset]
            axis.imshow(pixels, interpolation="nearest")
            axis.axis("off")
            axis.set_title(textwrap.fill(scene.caption(), 22) if offset == 0 else kind, fontsize=6)
    figure.savefig(HERE / "demo_contact_sheet.png", dpi=110)


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    overview(interp.open_run(sys.argv[1]))
    contact_sheet()
