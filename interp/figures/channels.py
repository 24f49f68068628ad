"""Figures of massive channels: spikes, token surface, layer profile, trend, stability, energy, outliers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.figures import style


def spikes(found: xr.Dataset, *, block: int = -1, stream: str = "image") -> go.Figure:
    """Size of every channel at one block, selected ones marked: DG Fig. 2 in side view. `found` is from `massive.find`."""
    blocks = found["block"].to_numpy()
    here = found.sel(stream=stream, block=blocks[block] if block < 0 else block)
    size, selected, channel = (here[name].to_numpy() for name in ("size", "selected", "channel"))
    title = f"channels of block {int(here['block'])}, {stream} stream"
    unit = "mean |hidden|" if str(found.attrs["criterion"]).split("(")[0] in ("robust", "ratio", "top") else "quantity scored"
    made = style.figure(title, "channel", unit, barmode="overlay", bargap=0)
    style.spikes(made, channel, size, selected)
    style.control(made, channel[[0, -1]], [float(np.median(size))] * 2, "median channel")
    for number in np.flatnonzero(selected)[np.argsort(-size[selected])][:12]:
        made.add_annotation(x=channel[number], y=size[number], text=str(channel[number]), showarrow=False, yshift=10)
    return style.caption(made, found.attrs)


def one_state(values: xr.DataArray, *, selected: Sequence[int] = ()) -> go.Figure:
    """Size of every channel at one block and step; massive ones marked. From `glance.channels`."""
    where = f"block {int(values['block'])}, step {int(values['step'])} (timestep {float(values['timestep']):.0f})"
    made = style.figure(
        f"every channel at {where}, {values['stream'].item()} stream", "channel", "mean |hidden|", barmode="overlay", bargap=0
    )
    size, channel = values.to_numpy(), values["channel"].to_numpy()
    chosen = np.isin(channel, list(selected))
    style.spikes(made, channel, size, chosen)
    style.control(made, channel[[0, -1]], [float(np.median(size))] * 2, "median channel")
    for number in sorted({*np.flatnonzero(chosen)[:8], int(size.argmax())}):
        made.add_annotation(x=channel[number], y=size[number], text=str(channel[number]), showarrow=False, yshift=10)
    return style.caption(made, values.attrs)


def steps(
    values: xr.DataArray, title: str, unit: str, *, block: int | None = None, step: int | None = None, most: float | None = None
) -> go.Figure:
    """A heat map over steps and blocks with one cell framed; `most` is the colour scale's maximum. From `glance.ratio`."""
    made = style.figure(title, "step (sampling runs to the right)", "block")
    here = values.transpose("block", "step")
    made.add_heatmap(
        z=here.to_numpy(),
        x=here["step"],
        y=here["block"],
        customdata=np.broadcast_to(here["timestep"].to_numpy(), here.shape),
        hovertemplate="block %{y}, step %{x}, timestep %{customdata:.0f}: %{z:.4g}<extra></extra>",
        colorscale=style.SCALE,
        zmin=None if most is None else 0,
        zmax=most,
        colorbar={"title": unit},
    )
    if block is not None and step is not None:
        frame = {"color": style.COLOURS[1], "width": 3}
        made.add_shape(type="rect", x0=step - 0.5, x1=step + 0.5, y0=block - 0.5, y1=block + 0.5, line=frame)
    made.update_yaxes(autorange="reversed")
    return style.caption(made, values.attrs)


def threshold(found: xr.Dataset, *, block: int = -1, stream: str = "image", count: int = 24) -> go.Figure:
    """The largest scores at one block with intervals, and the criterion's threshold. From `massive.find`."""
    blocks = found["block"].to_numpy()
    here = found.sel(stream=stream, block=blocks[block] if block < 0 else block)
    order = np.argsort(-here["score"].fillna(-np.inf).to_numpy(), kind="stable")[:count]
    here = here.isel(channel=order)
    made = style.figure(f"scores at block {int(here['block'])}, {stream} stream: the largest {len(order)}", "channel", "score")
    value, selected = here["score"].to_numpy(), here["selected"].to_numpy()
    made.add_bar(
        x=[str(channel) for channel in here["channel"].to_numpy()],
        y=value,
        error_y=style.error(value, here["score_low"], here["score_high"], color=style.CONTROL),
        marker={"color": np.where(selected, *style.COLOURS[1::-1])},
        showlegend=False,
    )
    limit = found.attrs["threshold"]
    if limit != "none":
        line = {"color": style.CONTROL, "dash": "dash"}
        made.add_hline(y=float(limit), line=line, annotation_text=f"threshold {float(limit):g}")
    made.update_xaxes(type="category")
    return style.caption(made, found.attrs)


def scores(found: xr.Dataset, *, stream: str = "image") -> go.Figure:
    """The criterion's score, block x channel. `found` is from `massive.find`."""
    here = found["score"].sel(stream=stream)
    made = style.figure(f"score of every channel, {stream} stream", "channel", "block")
    made.add_heatmap(z=here.to_numpy(), x=here["channel"], y=here["block"], colorscale=style.SCALE, colorbar={"title": "score"})
    made.update_yaxes(autorange="reversed")
    return style.caption(made, found.attrs)


def surface(magnitude: xr.DataArray) -> go.Figure:
    """|hidden| over tokens and channels, averaged over prompts: DG Fig. 2. `magnitude` is from `energy.surface`."""
    made = style.figure("", "channel", "token")
    made.add_surface(
        z=magnitude.to_numpy(),
        x=magnitude["channel"],
        y=magnitude["token"],
        colorscale=style.SCALE,
        colorbar={"title": "mean |hidden|"},
    )
    made.update_layout(
        title={"text": f"block {int(magnitude['block'])}, timestep {float(magnitude['timestep']):.0f}"},
        scene={"xaxis": {"title": "channel"}, "yaxis": {"title": "token"}, "zaxis": {"title": "mean |hidden|"}},
    )
    return style.caption(made, magnitude.attrs)


def step_cells(made: go.Figure, values: xr.DataArray, **place: int) -> go.Figure:
    """Clickable marks on every cell of a heat map over steps and blocks, with (step, block) as their data."""
    here = values.transpose("block", "step")
    steps, blocks, times = (here[name].to_numpy() for name in ("step", "block", "timestep"))
    words = [f"step {step}, timestep {time:.0f}" for step, time in zip(steps, times, strict=True)]
    lines = zip(blocks, here.to_numpy(), strict=True)
    texts = [[f"block {block}, {at}: {value:.4g}" for at, value in zip(words, line, strict=True)] for block, line in lines]
    return style.clickable(made, steps.tolist(), blocks.tolist(), texts, **place)


def layers(profile: xr.Dataset) -> go.Figure:
    """Size of the channels, the median channel and the largest other channel over blocks: DG Figs. 3a, 10-12."""
    made = style.figure("massive channels over blocks", "block", "mean |hidden|")
    blocks = profile["block"].to_numpy()
    for number, channel in enumerate(profile["channel"].to_numpy()):
        here, colour = profile.sel(channel=channel), style.COLOURS[number % len(style.COLOURS)]
        style.band(made, blocks, here["size_low"].to_numpy(), here["size_high"].to_numpy(), colour)
        style.line(made, blocks, here["size"].to_numpy(), f"channel {channel}", colour)
    style.control(made, blocks, profile["median"].to_numpy(), "median channel")
    made.add_scatter(
        x=blocks,
        y=profile["largest_other"].to_numpy(),
        name="largest other",
        mode="lines",
        line={"color": style.CONTROL, "dash": "dot"},
    )
    return style.caption(made, profile.attrs)


def trend(found: xr.Dataset, *, channel: int | None = None) -> go.Figure:
    """One channel's size over timesteps, one line per block: DG Fig. 4b. `found` is from `trend.over_timesteps`."""
    channel = int(found["channel"][0]) if channel is None else channel
    here = found.sel(channel=channel)
    made = style.figure(f"channel {channel} over timesteps", "timestep (sampling runs to the right)", "mean |hidden|")
    times = here["timestep"].to_numpy()
    blocks = here["block"].to_numpy()
    for colour, block in zip(style.along(len(blocks)), blocks, strict=True):
        one = here.sel(block=block)
        style.band(made, times, one["size_low"].to_numpy(), one["size_high"].to_numpy(), colour)
        style.line(made, times, one["size"].to_numpy(), f"block {block}", colour)
    style.control(made, times, here["ordinary_size"].isel(block=-1).to_numpy(), f"median other channel, block {blocks[-1]}")
    made.update_xaxes(autorange="reversed")
    return style.caption(made, found.attrs)


def stability(found: xr.Dataset) -> go.Figure:
    """Jaccard overlap of top channels between samples, over blocks. `found` is from `stability.sets`."""
    made = style.figure(f"stability of the top {found.attrs['k']} channels", "block", "Jaccard overlap", yaxis_range=[0, 1.02])
    names = {
        "seeds": "same prompt, other seed",
        "prompts": "other prompt, same seed",
        "steps": "neighbouring steps",
        "first_last": "first and last step",
        "blocks": "this block and the next",
    }
    for number, (name, label) in enumerate(names.items()):
        values = found[name].to_numpy()
        if np.isfinite(values).any():
            kept, colour = np.isfinite(values), style.COLOURS[number]
            blocks = found["block"].to_numpy()[kept]
            style.band(made, blocks, found[f"{name}_low"].to_numpy()[kept], found[f"{name}_high"].to_numpy()[kept], colour)
            style.line(made, blocks, values[kept], label, colour)
    made.add_hline(y=float(found["chance"]), line={"color": style.CONTROL, "dash": "dash"}, annotation_text="chance")
    return style.caption(made, found.attrs)


def energy(found: xr.Dataset) -> go.Figure:
    """Share of the energy that the top k channels hold, over blocks. `found` is from `energy.shares`."""
    made = style.figure("energy held by few channels", "block", "share of E[x²]", yaxis_range=[0, 1.02])
    blocks = found["block"].to_numpy()
    for number, k in enumerate(found["k"].to_numpy()):
        here, colour = found.sel(k=k), style.COLOURS[number % len(style.COLOURS)]
        style.band(made, blocks, here["share_low"].to_numpy(), here["share_high"].to_numpy(), colour)
        style.line(made, blocks, here["share"].to_numpy(), f"top {k} (even split: {float(here['even']):.3f})", colour)
    return style.caption(made, found.attrs)


def outliers(found: xr.Dataset) -> go.Figure:
    """Sorted maxima per channel, one line per block: the range for a quantiser. `found` is from `energy.outliers`."""
    made = style.figure("largest |hidden| of every channel, sorted", "channel rank", "max |hidden|", yaxis_type="log")
    blocks = found["block"].to_numpy()
    for colour, block in zip(style.along(len(blocks)), blocks, strict=True):
        values = -np.sort(-found["largest"].sel(block=block).to_numpy())
        made.add_scatter(x=np.arange(len(values)), y=values, name=f"block {block}", mode="lines", line={"color": colour})
    return style.caption(made, found.attrs)


def token_norms(found: xr.Dataset) -> go.Figure:
    """Token norms with and without the massive channels. `found` is from `energy.token_norms`."""
    made = style.figure("token norms, with and without the massive channels", "L2 norm of a token", "share of tokens")
    last = found.isel(block=-1)
    for number, (name, label) in enumerate((("norm", "all channels"), ("excised", "without them"))):
        values = last[name].to_numpy().ravel()
        colour = style.COLOURS[number]
        made.add_histogram(x=values, histnorm="probability", name=label, opacity=0.6, marker={"color": colour}, nbinsx=60)
    made.update_layout(barmode="overlay")
    return style.caption(made, found.attrs)
