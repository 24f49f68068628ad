"""Statistics of latent frames with known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

ROWS = 8
SHAPE = (8, 6, 2, 5, 40)  # prompt, step, block, frame, channel


def planted(first: Any, ends: float, channels: tuple[int, ...] = (3, 7), spread: float = 0.05, seed: int = 0) -> xr.Dataset:
    """Insides of size 1 that scatter; the channels' first frames are `first` (per step) times that, their ends `ends` times.

    The mean over a frame is that of its tokens: two of `ROWS` rows are ends.
    """
    draw = np.random.default_rng(seed)
    inside, edge = draw.lognormal(0, spread, SHAPE), draw.lognormal(0, spread, SHAPE)
    inside[..., channels] *= 50
    edge[..., channels] *= 50 * ends
    whole = (1 - 2 / ROWS) * inside + 2 / ROWS * edge
    rising = np.broadcast_to(np.asarray(first, float), SHAPE[1])[None, :, None, None]
    whole[..., 0, channels] = 50 * rising * draw.lognormal(0, spread, (*SHAPE[:3], len(channels)))
    axes = ("prompt", "step", "block", "frame", "channel")
    coordinates = {name: np.arange(size) for name, size in zip(axes, SHAPE, strict=True)}
    texts = np.array([f"text {n}" for n in range(SHAPE[0])], dtype=object)
    data = xr.Dataset({"mean_abs": (axes, whole), "edge_abs": (axes, edge)}, coordinates, {"rows": ROWS})
    return data.assign_coords(prompt_text=("prompt", texts), seed=("prompt", np.arange(SHAPE[0])))


def null(seed: int = 0) -> xr.Dataset:
    """Every channel has its own sizes over frames, the same in every prompt: none is in order but by chance."""
    draw = np.random.default_rng(seed)
    axes = ("prompt", "step", "block", "frame", "channel")
    data = planted(1.0, 1.0, (), 0.05, seed)
    profile = draw.lognormal(0, 0.5, (2, 1, 1, 1, *SHAPE[3:]))
    data["mean_abs"], data["edge_abs"] = (
        (axes, data["mean_abs"].to_numpy() * profile[0]),
        (
            axes,
            data["edge_abs"].to_numpy() * profile[0] * profile[1] ** 0.2,
        ),
    )
    return data
