"""Figures of experiments' pictures: picture grids and the block lens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.figures import marks, style
from interp.figures.effects import UNITS
from interp.store.experiment import Experiment


def lens(found: xr.Dataset, measure: str = "structure") -> go.Figure:
    """Distance of every block's picture to the final one, over steps. From `patching.distances`."""
    value = found["value"].sel(measure=measure).transpose("kind", "block", "step")
    made = marks.heat_panels(
        f"block lens: {measure}, against the final picture",
        value,
        [str(kind) for kind in found["kind"].to_numpy()],
        unit=UNITS[measure],
        most=float(abs(value).max()),
        signed=bool((value < 0).any()),
        hover="block {block}, step {step}: {value:.3g}",
    )
    made.update_xaxes(type="category").update_yaxes(type="category")
    return style.caption(made, found.attrs)


def picture_of(experiment: Experiment, prompt: int, arm: int) -> Any:
    """The picture of a prompt under an arm, (y, x, rgb); `None` if it is not drawn yet."""
    return experiment.picture(prompt, arm) if experiment.done[prompt, arm] else None


def lens_pictures(experiment: Experiment, *, prompt: int = 0, steps: int = 6, kind: str = "whole") -> go.Figure:
    """Pictures decoded from every block: a row for each of a few steps, a column per block, the final picture last."""
    axes = experiment.axes
    kinds, blocks, all_steps = (axes[name].to_numpy() for name in ("kind", "block", "step"))
    here = [int(step) for step in sorted(set(all_steps[all_steps >= 0].tolist()))]
    shown = [here[place] for place in sorted({round(p) for p in np.linspace(0, len(here) - 1, min(steps, len(here)))})]
    columns = sorted({int(block) for block in blocks if block >= 0})
    grid = []
    for step in shown:
        arms = [int(np.flatnonzero((kinds == kind) & (blocks == block) & (all_steps == step))[0]) for block in columns]
        grid.append([picture_of(experiment, prompt, arm) for arm in (*arms, 0)])
    names = [*(f"block {block}" for block in columns), "final picture"]
    text = str(axes["prompt_text"].to_numpy()[prompt])
    return picture_grid(grid, names, [f"step {step}" for step in shown], f"block lens, {kind}: {text}")


def strip(
    experiment: Experiment, prompts: Sequence[int], arms: Sequence[int], labels: Sequence[str] | None = None
) -> go.Figure:
    """Pictures: one row per prompt, one column per arm; cells not drawn stay empty."""
    axes = experiment.axes
    names = list(labels) if labels is not None else [str(axes["arm"].to_numpy()[arm]).replace("_", " ") for arm in arms]
    texts = [style.short(str(axes["prompt_text"].to_numpy()[prompt])) for prompt in prompts]
    grid = [[picture_of(experiment, prompt, arm) for arm in arms] for prompt in prompts]
    return picture_grid(grid, names, texts, f"{experiment.kind}: {experiment.plan.get('model')}")


def picture_grid(pictures: Sequence[Sequence[Any]], columns: Sequence[str], rows: Sequence[str], title: str) -> go.Figure:
    """Pictures, (y, x, rgb) uint8 or None, in rows and columns with their names."""
    count, wide = len(rows), len(columns)
    titles = [style.short(name.replace("+", " +").replace(":block", " :block"), 14) for name in columns]
    gap = {"horizontal_spacing": 0.1 / max(wide, 2), "vertical_spacing": 0.1 / max(count, 2)}
    made = style.grid(count, wide, column_titles=titles, row_titles=list(rows), **gap)
    for y, line in enumerate(pictures):
        for x, picture in enumerate(line):
            if picture is not None:
                made.add_image(source=style.source(picture), row=y + 1, col=x + 1)
    bare = {"showticklabels": False, "showgrid": False, "zeroline": False}
    made.update_xaxes(bare).update_yaxes(bare).update_annotations(font_size=9)
    top = 66 + 12 * max(title.count("<br>") + 1 for title in titles)  # the title, and the names' lines
    margin = {"l": 20, "r": 90, "t": top, "b": 10}
    return style.titled(made, style.plain(title), width=120 + 90 * wide, height=30 + top + 95 * count, margin=margin)
