"""Small Datasets with known answers, as the analyses are given them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

Array = np.ndarray[Any, Any]


def statistics(mean_abs: Array, *, texts: list[str] | None = None, seeds: list[int] | None = None, **more: Array) -> xr.Dataset:
    """A Dataset of statistics from (prompt, step, block, channel) values of one stream, by default each row with a seed."""
    axes = ("prompt", "step", "block", "channel")
    prompts, steps, blocks, channels = mean_abs.shape
    variables = {"mean_abs": (axes, mean_abs.astype(np.float32)), **{name: (axes, value) for name, value in more.items()}}
    data = xr.Dataset(
        variables,
        {
            "prompt": np.arange(prompts),
            "prompt_text": ("prompt", np.array(texts or [f"text {n}" for n in range(prompts)], dtype=object)),
            "seed": ("prompt", seeds or list(range(prompts))),
            "step": np.arange(steps),
            "timestep": ("step", np.linspace(1000, 50, steps)),
            "block": np.arange(blocks),
            "channel": np.arange(channels),
        },
    )
    return data.expand_dims(stream=["image"], axis=3)


def noise(shape: tuple[int, ...], seed: int = 0, spread: float = 0.3) -> Array:
    """Positive values: every block's channels have levels of their own, and samples scatter around them."""
    draw = np.random.default_rng(seed)
    return draw.lognormal(0.0, spread, (1, 1, *shape[2:])) * draw.lognormal(0.0, spread / 5, shape)
