"""Figures of picture experiments: effects with intervals, and the pictures themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from interp.figures import style
from interp.figures.places import short
from interp.store.experiment import Experiment

UNITS = {"structure": "0..1", "detail": "decades", "sharpness": "log2", "prompt_effect": "share"}
CELLS_WITH_TEXT = 60
CONTROLS = ("random", "lowest", "displaced", "norms_as_if_zero")


def disruption(found: xr.Dataset) -> go.Figure:
    """Every measure of every arm with its interval; controls grey, the margin of "minimal" shaded."""
    names = [str(name) for name in found["measure"].to_numpy()]
    titles = [f"{name.replace('_', ' ')}, {UNITS[name]}" for name in names]
    made = make_subplots(1, len(names), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03)
    arms = [str(arm).replace("_", " ") for arm in found["arm"].to_numpy()]
    control = np.isin(found["kind"].to_numpy().astype(str), CONTROLS)
    for number, name in enumerate(names):
        one = found.sel(measure=name)
        value, low, high = (one[part].to_numpy() for part in ("value", "low", "high"))
        made.add_scatter(
            x=value,
            y=arms,
            mode="markers",
            marker={"size": 8, "color": [style.CONTROL if grey else style.COLOURS[0] for grey in control]},
            error_x={"type": "data", "symmetric": False, "array": high - value, "arrayminus": value - low, "thickness": 1.2},
            customdata=one["verdict"].to_numpy(),
            hovertemplate="%{y}: %{x:.3g} (%{customdata})<extra></extra>",
            showlegend=False,
            row=1,
            col=number + 1,
        )
        margin = float(one["margin"])
        made.add_vrect(x0=-margin, x1=margin, fillcolor=style.CONTROL, opacity=0.15, line_width=0, row=1, col=number + 1)
        made.add_vline(x=0, line={"color": style.CONTROL, "width": 1}, row=1, col=number + 1)
    made.update_yaxes(autorange="reversed")
    made.update_layout(
        template="plotly_white",
        title={"text": f"channels {found.attrs['channels']} taken away: what becomes of the pictures", "font": {"size": 15}},
        height=150 + 26 * len(arms),
        margin={"l": 150, "r": 20, "t": 110, "b": 40},
    )
    return style.caption(made, found.attrs)


def patch_grid(found: xr.Dataset) -> go.Figure:
    """Recovered by block and step (or region), one heat map for each thing patched. From `patching.recovered`."""
    whats = [str(what) for what in found["what"].to_numpy()]
    titles = [f"{what} patched" for what in whats]
    made = make_subplots(1, len(whats), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03)
    most = max(0.05, float(abs(found["recovered"]).max()))
    few = found.sizes["block"] * found.sizes["column"] <= CELLS_WITH_TEXT
    for number, what in enumerate(whats):
        one = found.sel(what=what)
        bounds = np.stack([one["recovered_low"].to_numpy(), one["recovered_high"].to_numpy()], axis=-1)
        made.add_heatmap(
            z=one["recovered"].to_numpy(),
            x=[str(column) for column in one["column"].to_numpy()],
            y=one["block"].to_numpy(),
            colorscale="RdBu_r",
            zmid=0,
            zmin=-most,
            zmax=most,
            customdata=bounds,
            hovertemplate="block %{y}, %{x}: %{z:.2f} [%{customdata[0]:.2f}, %{customdata[1]:.2f}]<extra></extra>",
            texttemplate="%{z:.2f}" if few else None,
            textfont={"size": 9},
            colorbar={"title": "recovered"},
            showscale=number == len(whats) - 1,
            row=1,
            col=number + 1,
        )
    made.update_xaxes(title_text="steps" if found.attrs["columns"] == "steps" else "region", type="category")
    made.update_yaxes(title_text="block", dtick=1, row=1, col=1)
    made.update_layout(
        template="plotly_white",
        title={"text": f"share of the clean picture that a patch brings back ({found.attrs['metric']})", "font": {"size": 15}},
        margin={"l": 60, "r": 20, "t": 110, "b": 60},
    )
    return style.caption(made, found.attrs)


def strip(
    experiment: Experiment, prompts: Sequence[int], arms: Sequence[int], labels: Sequence[str] | None = None
) -> go.Figure:
    """Pictures: a row for every prompt, a column for every arm; cells that are not drawn stay empty."""
    axes = experiment.axes
    names = list(labels) if labels is not None else [str(axes["arm"].to_numpy()[arm]).replace("_", " ") for arm in arms]
    texts = [short(str(axes["prompt_text"].to_numpy()[prompt])) for prompt in prompts]
    grid = [[experiment.picture(p, a) if experiment.done[p, a] else None for a in arms] for p in prompts]
    return picture_grid(grid, names, texts, f"{experiment.kind}: {experiment.plan.get('model')}")


def picture_grid(pictures: Sequence[Sequence[Any]], columns: Sequence[str], rows: Sequence[str], title: str) -> go.Figure:
    """Pictures, (y, x, rgb) uint8 or None, in rows and columns with their names."""
    count, wide = len(rows), len(columns)
    titles = [short(name, 14) for name in columns]
    gap = {"horizontal_spacing": 0.1 / max(wide, 2), "vertical_spacing": 0.1 / max(count, 2)}
    made = make_subplots(count, wide, column_titles=titles, row_titles=list(rows), **gap)
    for y, line in enumerate(pictures):
        for x, picture in enumerate(line):
            if picture is not None:
                made.add_image(z=picture, row=y + 1, col=x + 1)
    made.update_xaxes(showticklabels=False, showgrid=False, zeroline=False)
    made.update_yaxes(showticklabels=False, showgrid=False, zeroline=False)
    made.update_annotations(font_size=9)
    made.update_layout(
        template="plotly_white",
        title={"text": title, "font": {"size": 15}},
        width=120 + 90 * wide,
        height=120 + 95 * count,
        margin={"l": 20, "r": 90, "t": 90, "b": 10},
    )
    return made
