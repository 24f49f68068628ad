"""Figures of where channels live: heat maps over image tokens, clusters, IoU curves."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.figures import style

MASK = [[0, "#e4e4e4"], [1, style.COLOURS[0]]]


def token_map(values: xr.DataArray) -> go.Figure:
    """A map over image tokens, (token_y, token_x)."""
    made = style.figure(str(values.attrs.get("long_name", values.name or "value")), "token x", "token y")
    made.add_heatmap(z=values.to_numpy().astype(float), colorscale=style.SCALE, colorbar={"title": "value"})
    made.update_yaxes(autorange="reversed", scaleanchor="x", constrain="domain")
    made.update_xaxes(constrain="domain")
    return style.caption(made, values.attrs)


def over_picture(values: xr.DataArray, picture: Any = None, *, token: tuple[int, int] | None = None) -> go.Figure:
    """A map over image tokens, (token_y, token_x), on top of its picture; one token, (y, x), framed."""
    rows, columns = values.sizes["token_y"], values.sizes["token_x"]
    made = style.figure(str(values.attrs.get("long_name", values.name or "value")), "token x", "token y")
    if picture is not None:
        where = {"x": -0.5, "y": -0.5, "sizex": columns, "sizey": rows, "xref": "x", "yref": "y", "yanchor": "top"}
        made.add_layout_image(source=style.source(picture, 512), sizing="stretch", layer="below", **where)
    made.add_heatmap(
        z=values.to_numpy().astype(float),
        colorscale=style.SCALE,
        opacity=1 if picture is None else 0.7,
        colorbar={"title": str(values.attrs.get("units", "value"))},
        hovertemplate="token y %{y}, x %{x}: %{z:.4g}<extra></extra>",
    )
    if token is not None:
        y, x = token
        frame = {"color": style.COLOURS[1], "width": 3}
        made.add_shape(type="rect", x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line=frame)
    made.update_yaxes(range=[rows - 0.5, -0.5], scaleanchor="x", constrain="domain", showgrid=False, zeroline=False)
    made.update_xaxes(range=[-0.5, columns - 0.5], constrain="domain", showgrid=False, zeroline=False)
    return style.caption(made, values.attrs)


def token_cells(made: go.Figure, values: xr.DataArray) -> go.Figure:
    """Clickable marks on every token of a map, with (token x, token y) as their data."""
    lines = enumerate(values.to_numpy().astype(float))
    texts = [[f"token y {y}, x {x}: {value:.4g}" for x, value in enumerate(line)] for y, line in lines]
    return style.clickable(made, range(values.sizes["token_x"]), range(values.sizes["token_y"]), texts)


def token_channels(values: xr.DataArray, *, count: int = 24) -> go.Figure:
    """The largest channels of one token, by |hidden|; (channel)."""
    y, x, block, step = (int(values[name]) for name in ("token_y", "token_x", "block", "step"))
    made = style.figure(f"largest channels of token y {y}, x {x}, block {block}, step {step}", "channel", "hidden")
    order = np.argsort(-abs(values.to_numpy()), kind="stable")[:count]
    names = [str(channel) for channel in values["channel"].to_numpy()[order]]
    made.add_bar(x=names, y=values.to_numpy()[order], marker={"color": style.COLOURS[0]}, showlegend=False)
    style.control(made, [names[0], names[-1]], [float(np.median(abs(values)))] * 2, "median |hidden| of all channels")
    made.update_xaxes(type="category")
    return style.caption(made, values.attrs)


def clusters(found: xr.Dataset, *, prompts: int = 6, block: int = -1) -> go.Figure:
    """Heat map and mask of the first prompts at one block. From `segmentation.masks`."""
    here = found.isel(block=block, step=-1, prompt=slice(0, prompts))
    count = here.sizes["prompt"]
    texts = (
        [style.short(str(text)) for text in here["prompt_text"].to_numpy()] if "prompt_text" in here.coords else [""] * count
    )
    made = style.subplots(2, count, subplot_titles=texts, vertical_spacing=0.06, horizontal_spacing=0.02)
    for number in range(count):
        one = here.isel(prompt=number)
        made.add_heatmap(z=one["heat"].to_numpy(), colorscale=style.SCALE, showscale=False, row=1, col=number + 1)
        made.add_heatmap(
            z=one["mask"].to_numpy().astype(int), colorscale=MASK, zmin=0, zmax=1, showscale=False, row=2, col=number + 1
        )
    _square(made)
    made.update_annotations(font_size=9)
    title = f"two clusters of channels {style.some(found.attrs['channels'])}, block {int(here['block'])}"
    made.update_layout(title={"text": title, "font": {"size": 15}}, margin={"t": 140, "b": 20})
    made.update_yaxes(title_text="heat", row=1, col=1)
    made.update_yaxes(title_text="mask", row=2, col=1)
    return made


def overlap(found: xr.Dataset) -> go.Figure:
    """IoU with the true masks over blocks: top, bottom and random channels, trivial masks. From `segmentation.score`."""
    made = style.figure(
        f"tokens clustered on {found.attrs['k']} channels", "block", "IoU with the true masks", yaxis_range=[0, 1.02]
    )
    here, blocks = found.isel(step=-1), found["block"].to_numpy()
    for number, strategy in enumerate(found["strategy"].to_numpy()):
        one, colour = here.sel(strategy=strategy), style.COLOURS[number]
        style.band(made, blocks, one["iou_low"].to_numpy(), one["iou_high"].to_numpy(), colour)
        style.line(made, blocks, one["iou"].to_numpy(), f"{strategy} channels", colour)
        name, better = f"{strategy}, better side", one["either"].to_numpy()
        made.add_scatter(x=blocks, y=better, name=name, mode="lines", line={"color": colour, "dash": "dash"})
    for number, baseline in enumerate(found["baseline"].to_numpy()):
        value = float(found["trivial"].sel(baseline=baseline))
        line = {"color": style.CONTROL, "dash": ("dash", "dot")[number % 2]}
        made.add_scatter(x=blocks, y=[value] * len(blocks), name=str(baseline), mode="lines", line=line)
    return style.caption(made, found.attrs)


def principal(found: xr.DataArray) -> go.Figure:
    """Principal components of the tokens' states as maps. From `segmentation.principal_map`."""
    explained = found.attrs.get("explained", [])
    titles = [f"component {n + 1}: {share:.0%} of variance" for n, share in enumerate(explained)]
    made = style.subplots(1, found.sizes["component"], subplot_titles=titles)
    for number in range(found.sizes["component"]):
        made.add_heatmap(
            z=found.isel(component=number).to_numpy(), colorscale="RdBu", zmid=0, showscale=False, row=1, col=number + 1
        )
    _square(made)
    made.update_layout(title={"text": "image tokens along their principal components", "font": {"size": 15}})
    return made


def _square(made: go.Figure) -> None:
    """Make cells square and remove ticks in every subplot, each with its own axes."""
    made.update_xaxes(showticklabels=False, constrain="domain")
    made.update_yaxes(showticklabels=False, constrain="domain", autorange="reversed")
    for axis in made.select_yaxes():
        axis.scaleanchor = axis.anchor


def pictures(images: xr.DataArray, *, count: int = 8) -> go.Figure:
    """Traced pictures in a row, (prompt, y, x, rgb)."""
    shown = images.isel(prompt=slice(0, count))
    texts = [style.short(str(text)) for text in shown["prompt_text"].to_numpy()]
    made = style.subplots(1, shown.sizes["prompt"], subplot_titles=texts, horizontal_spacing=0.01)
    for number in range(shown.sizes["prompt"]):
        made.add_image(source=style.source(shown.isel(prompt=number).to_numpy()), row=1, col=number + 1)
    made.update_xaxes(showticklabels=False).update_yaxes(showticklabels=False)
    made.update_annotations(font_size=9)
    made.update_layout(title={"text": "traced pictures"}, height=300, margin={"t": 120, "b": 10})
    return made


def pck(found: xr.Dataset, threshold: int = -2) -> go.Figure:
    """PCK of every kind of descriptor over blocks, one panel per step; the grid's best and chance as lines. From
    `interp.features`.
    """
    here, steps = found.isel(threshold=threshold), found["step"].to_numpy()
    level = float(here["threshold"])
    made = style.subplots(1, len(steps), subplot_titles=[f"step {step}" for step in steps], shared_yaxes=True)
    blocks = found["block"].to_numpy()
    for place, step in enumerate(steps):
        where = {"row": 1, "col": place + 1}
        for number, kind in enumerate(found["kind"].to_numpy()):
            one = here.sel(kind=kind, step=step)
            made.add_scatter(
                x=blocks + 0.06 * (number - 2),
                y=one["pck"].to_numpy(),
                name=str(kind).replace("_", ", "),
                legendgroup=str(kind),
                showlegend=place == 0,
                mode="lines+markers",
                line={"color": style.COLOURS[number]},
                error_y=style.error(one["pck"], one["pck_low"], one["pck_high"], thickness=1),
                **where,
            )
        for baseline in found["baseline"].to_numpy():
            value = float(here["beside"].sel(baseline=baseline))
            side = "bottom right" if baseline == "chance" else "top right"  # "same place" is often near chance
            line = {"color": style.CONTROL, "dash": "dash"}
            made.add_hline(y=value, line=line, annotation_text=str(baseline), annotation_position=side, **where)
    made.update_xaxes(title_text="block of the input states", tickvals=found["block"].to_numpy())
    made.update_yaxes(range=[-0.07, 1.04])
    made.update_yaxes(title_text=f"PCK@{level:g}", col=1)
    made.update_layout(
        title={"text": f"correspondence, channels {style.some(found.attrs['channels'])} discarded", "font": {"size": 15}},
        margin={"t": 110, "b": 60},
        width=1200,
        height=460,
    )
    return style.caption(made, found.attrs)
