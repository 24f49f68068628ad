"""Figures of where channels live: heat maps over image tokens, clusters, IoU curves."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.figures import marks, style
from interp.figures.drawn import picture_grid

TOKENS = ("token_x", "token_y")
MASK = [[0, "#e4e4e4"], [1, style.COLOURS[0]]]


def token_map(values: xr.DataArray) -> go.Figure:
    """A map over image tokens, (token_y, token_x)."""
    return over_picture(values)


def over_picture(values: xr.DataArray, picture: Any = None, *, token: tuple[int, int] | None = None) -> go.Figure:
    """A map over image tokens, (token_y, token_x), on top of its picture; one token, (y, x), framed."""
    rows, columns = values.sizes["token_y"], values.sizes["token_x"]
    made = style.figure(f"{values.attrs.get('long_name', values.name or 'value')}{_frame(values)}", "token x", "token y")
    if picture is not None:
        where = {"x": -0.5, "y": -0.5, "sizex": columns, "sizey": rows, "xref": "x", "yref": "y", "yanchor": "top"}
        made.add_layout_image(source=style.source(picture, 512), sizing="stretch", layer="below", **where)
    hover, opacity = "token y {token_y}, x {token_x}: {value:.4g}", 1 if picture is None else 0.7
    marks.heat(made, values, TOKENS, unit=str(values.attrs.get("units", "value")), opacity=opacity, hover=hover)
    if token is not None:
        marks.framed(made, token[1], token[0])
    bare = {"constrain": "domain", "showgrid": False, "zeroline": False}
    made.update_yaxes(bare, range=[rows - 0.5, -0.5], autorange=None, scaleanchor="x")
    made.update_xaxes(bare, range=[-0.5, columns - 0.5])
    return style.caption(made, values.attrs)


def token_channels(values: xr.DataArray, *, count: int = 24) -> go.Figure:
    """The largest channels of one token, by |hidden|; (channel)."""
    y, x, block, step = (int(values[name]) for name in ("token_y", "token_x", "block", "step"))
    title = f"largest channels of token y {y}, x {x}, block {block}, step {step}{_frame(values)}"
    made = style.figure(title, "channel", "hidden")
    order = np.argsort(-abs(values.to_numpy()), kind="stable")[:count]
    names = [str(channel) for channel in values["channel"].to_numpy()[order]]
    made.add_bar(x=names, y=values.to_numpy()[order], marker={"color": style.COLOURS[0]}, showlegend=False)
    marks.dashed(made, [names[0], names[-1]], [float(np.median(abs(values)))] * 2, "median |hidden| of all channels")
    made.update_xaxes(type="category")
    return style.caption(made, values.attrs)


def clusters(found: xr.Dataset, *, prompts: int = 6, block: int = -1) -> go.Figure:
    """Heat map and mask of the first prompts at one block. From `segmentation.masks`."""
    here = found.isel(block=block, step=-1, prompt=slice(0, prompts))
    count = here.sizes["prompt"]
    texts = (
        [style.short(str(text)) for text in here["prompt_text"].to_numpy()] if "prompt_text" in here.coords else [""] * count
    )
    title = f"two clusters of channels {style.some(found.attrs['channels'])}, block {int(here['block'])}{_frame(found)}"
    margin = {"l": 60, "r": 20, "t": 140, "b": 20}
    made, places = style.panels(title, [*texts, *[""] * count], columns=count, shared=False, margin=margin)
    for number, place in enumerate(places):
        one = here.isel(prompt=number % count)
        shown: dict[str, Any] = {"colorscale": style.SCALE} if number < count else {"colorscale": MASK, "zmin": 0, "zmax": 1}
        marks.heat(made, one["heat" if number < count else "mask"], TOKENS, showscale=False, **shown, **place)
    _square(made)
    made.update_annotations(font_size=9)
    made.update_yaxes(title_text="heat", row=1, col=1).update_yaxes(title_text="mask", row=2, col=1)
    return made


def overlap(found: xr.Dataset) -> go.Figure:
    """IoU with the true masks over blocks: top, bottom and random channels, trivial masks. From `segmentation.score`."""
    title = f"tokens clustered on {found.attrs['k']} channels"
    made = style.figure(title, "block", "IoU with the true masks", yaxis_range=[0, 1.02])
    blocks = found["block"].to_numpy()
    for colour, strategy, one in marks.each(found.isel(step=-1), "strategy"):
        marks.estimate(made, one, "block", "iou", f"{strategy} channels", colour)
        marks.dashed(made, blocks, one["either"], f"{strategy}, better side", colour)
    for number, (_, baseline, one) in enumerate(marks.each(found, "baseline")):
        value = [float(one["trivial"])] * len(blocks)
        marks.dashed(made, blocks, value, str(baseline), dash=("dash", "dot")[number % 2])
    return style.caption(made, found.attrs)


def principal(found: xr.DataArray) -> go.Figure:
    """Principal components of the tokens' states as maps. From `segmentation.principal_map`."""
    explained = found.attrs.get("explained", [])
    titles = [f"component {n + 1}: {share:.0%} of variance" for n, share in enumerate(explained)]
    made, places = style.panels("image tokens along their principal components", titles, shared=False)
    for number, place in enumerate(places):
        one = found.isel(component=number)
        marks.heat(made, one, TOKENS, most=float(abs(one).max()), signed=True, colorscale="RdBu", showscale=False, **place)
    _square(made)
    return made


def _frame(values: xr.DataArray | xr.Dataset) -> str:
    """Which latent frame of a video it is."""
    return f", frame {int(values['frame'])}" if "frame" in values.coords else ""


def _square(made: go.Figure) -> None:
    """Make cells square and remove ticks in every subplot, each with its own axes."""
    bare = {"showticklabels": False, "constrain": "domain"}
    made.update_xaxes(bare).update_yaxes(bare)
    for axis in made.select_yaxes():
        axis.scaleanchor = axis.anchor


def pictures(images: xr.DataArray, *, count: int = 8) -> go.Figure:
    """Traced pictures in a row, (prompt, y, x, rgb)."""
    shown = images.isel(prompt=slice(0, count))
    texts = [str(text) for text in shown["prompt_text"].to_numpy()]
    return picture_grid([list(shown.to_numpy())], texts, [""], "traced pictures")


def pck(found: xr.Dataset, threshold: int = -2) -> go.Figure:
    """PCK of every kind of descriptor over blocks, one panel per step; the grid's best and chance as lines. From
    `interp.features`.
    """
    here = found.isel(threshold=threshold)
    title = f"correspondence, channels {style.some(found.attrs['channels'])} discarded"
    titles = [f"step {step}" for step in found["step"].to_numpy()]
    made, places = style.panels(title, titles, width=1200, height=460)
    for step, place in enumerate(places):
        for number, (colour, kind, one) in enumerate(marks.each(here.isel(step=step), "kind")):
            blocks, name = found["block"].to_numpy() + 0.06 * (number - 2), str(kind).replace("_", ", ")
            marks.intervals(made, blocks, one, "pck", name, line={"color": colour}, **place)
        for _, baseline, one in marks.each(here, "baseline"):
            side = "bottom right" if baseline == "chance" else "top right"  # "same place" is often near chance
            shown = {"annotation_text": str(baseline), "annotation_position": side}
            made.add_hline(y=float(one["beside"]), line=marks.DASHED, **shown, **place)
    made.update_xaxes(title_text="block of the input states", tickvals=found["block"].to_numpy())
    made.update_yaxes(range=[-0.07, 1.04]).update_yaxes(title_text=f"PCK@{float(here['threshold']):g}", col=1)
    return style.caption(made, found.attrs)
