"""Figures of massive channels: spikes, token surface, layer profile, trend, frames, stability, energy, outliers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.analysis.sources import check_stream
from interp.base.streams import GENERATED
from interp.figures import marks, style

OVERLAPS = {
    "seeds": "same prompt, other seed",
    "prompts": "other prompt, same seed",
    "steps": "neighbouring steps",
    "first_last": "first and last step",
    "blocks": "this block and the next",
}


def spikes(found: xr.Dataset, *, block: int = -1, stream: str = GENERATED) -> go.Figure:
    """Size of every channel at one block, selected ones marked: DG Fig. 2 in side view. `found` is from `massive.find`."""
    stream = check_stream(found, stream)
    here = _at_block(found, stream, block)
    size, selected, channel = (here[name].to_numpy() for name in ("size", "selected", "channel"))
    unit = "mean |hidden|" if str(found.attrs["criterion"]).split("(")[0] in ("robust", "ratio", "top") else "quantity scored"
    made = style.figure(
        f"channels of block {int(here['block'])}, {stream} stream", "channel", unit, barmode="overlay", bargap=0
    )
    marks.spikes(made, channel, size, selected, np.flatnonzero(selected)[np.argsort(-size[selected])][:12])
    return style.caption(made, found.attrs)


def _at_block(found: xr.Dataset, stream: str, block: int) -> xr.Dataset:
    """One block of a stream; -1 is the last one."""
    return found.sel(stream=stream, block=found["block"].to_numpy()[block] if block < 0 else block)


def one_state(values: xr.DataArray, *, selected: Sequence[int] = ()) -> go.Figure:
    """Size of every channel at one block and step; massive ones marked. From `glance.channels`."""
    where = f"block {int(values['block'])}, step {int(values['step'])} (timestep {float(values['timestep']):.0f})"
    title = f"every channel at {where}, {values['stream'].item()} stream"
    made = style.figure(title, "channel", "mean |hidden|", barmode="overlay", bargap=0)
    size, channel = values.to_numpy(), values["channel"].to_numpy()
    chosen = np.isin(channel, list(selected))
    marks.spikes(made, channel, size, chosen, sorted({*np.flatnonzero(chosen)[:8], int(size.argmax())}))
    return style.caption(made, values.attrs)


def steps(
    values: xr.DataArray, title: str, unit: str, *, block: int | None = None, step: int | None = None, most: float | None = None
) -> go.Figure:
    """A heat map over steps and blocks with one cell framed; `most` is the colour scale's maximum. From `glance.ratio`."""
    made = style.figure(title, "step (sampling runs to the right)", "block")
    hover = "block {block}, step {step}, timestep {timestep:.0f}: {value:.4g}"
    marks.heat(made, values, ("step", "block"), unit=unit, most=most, hover=hover)
    if block is not None and step is not None:
        marks.framed(made, step, block)
    return style.caption(made, values.attrs)


def threshold(found: xr.Dataset, *, block: int = -1, stream: str = GENERATED, count: int = 24) -> go.Figure:
    """The largest scores at one block with intervals, and the criterion's threshold. From `massive.find`."""
    stream = check_stream(found, stream)
    here = _at_block(found, stream, block)
    order = np.argsort(-here["score"].fillna(-np.inf).to_numpy(), kind="stable")[:count]
    here = here.isel(channel=order)
    made = style.figure(f"scores at block {int(here['block'])}, {stream} stream: the largest {len(order)}", "channel", "score")
    made.add_bar(
        x=[str(channel) for channel in here["channel"].to_numpy()],
        y=here["score"].to_numpy(),
        error_y=marks.error(here, "score", color=style.CONTROL),
        marker={"color": np.where(here["selected"].to_numpy(), *style.COLOURS[1::-1])},
        showlegend=False,
    )
    limit = found.attrs["threshold"]
    if limit != "none":
        made.add_hline(y=float(limit), line=marks.DASHED, annotation_text=f"threshold {float(limit):g}")
    made.update_xaxes(type="category")
    return style.caption(made, found.attrs)


def scores(found: xr.Dataset, *, stream: str = GENERATED) -> go.Figure:
    """The criterion's score, block x channel. `found` is from `massive.find`."""
    stream = check_stream(found, stream)
    made = style.figure(f"score of every channel, {stream} stream", "channel", "block")
    marks.heat(made, found["score"].sel(stream=stream), ("channel", "block"), unit="score")
    return style.caption(made, found.attrs)


def surface(magnitude: xr.DataArray) -> go.Figure:
    """|hidden| over tokens and channels, averaged over prompts: DG Fig. 2. `magnitude` is from `energy.surface`."""
    title = f"block {int(magnitude['block'])}, timestep {float(magnitude['timestep']):.0f}"
    axes = {"xaxis": {"title": "channel"}, "yaxis": {"title": "token"}, "zaxis": {"title": "mean |hidden|"}}
    made = style.figure(title, "channel", "token", scene=axes)
    made.add_surface(
        z=magnitude.to_numpy(),
        x=magnitude["channel"],
        y=magnitude["token"],
        colorscale=style.SCALE,
        colorbar={"title": "mean |hidden|"},
    )
    return style.caption(made, magnitude.attrs)


def layers(profile: xr.Dataset) -> go.Figure:
    """Size of the channels, the median channel and the largest other channel over blocks: DG Figs. 3a, 10-12."""
    made = style.figure("massive channels over blocks", "block", "mean |hidden|")
    for colour, channel, here in marks.each(profile, "channel"):
        marks.estimate(made, here, "block", "size", f"channel {channel}", colour)
    marks.dashed(made, profile["block"], profile["median"], "median channel")
    marks.dashed(made, profile["block"], profile["largest_other"], "largest other", dash="dot")
    return style.caption(made, profile.attrs)


def trend(found: xr.Dataset, *, channel: int | None = None) -> go.Figure:
    """One channel's size over timesteps, one line per block: DG Fig. 4b. `found` is from `trend.over_timesteps`."""
    channel = int(found["channel"][0]) if channel is None else channel
    here, blocks = found.sel(channel=channel), found["block"].to_numpy()
    made = style.figure(f"channel {channel} over timesteps", "timestep (sampling runs to the right)", "mean |hidden|")
    for colour, block in zip(style.along(len(blocks)), blocks, strict=True):
        marks.estimate(made, here.sel(block=block), "timestep", "size", f"block {block}", colour)
    other = here["ordinary_size"].isel(block=-1)
    marks.dashed(made, here["timestep"], other, f"median other channel, block {blocks[-1]}")
    made.update_xaxes(autorange="reversed")
    return style.caption(made, found.attrs)


def frames(found: xr.Dataset, *, block: int | None = None) -> go.Figure:
    """Size by latent frame over its mean, a panel for each third of the steps; other channels as the control. From
    `frames.over_frames`; by default the middle block.
    """
    number = found["block"].to_numpy()[found.sizes["block"] // 2] if block is None else block
    title = f"channels {style.some(found.attrs['channels'])} over latent frames, block {number}"
    here = found.sel(block=number)
    made, places = style.panels(title, [f"{third} steps" for third in found["third"].to_numpy()])
    for third, place in enumerate(places):
        for colour, name, one in marks.each(here.isel(third=third), "set"):
            line = {"color": colour if name == "massive" else style.CONTROL}
            marks.intervals(made, found["frame"], one, "relative", f"{name} channels", line=line, **place)
    made.update_xaxes(title_text="latent frame").update_yaxes(title_text="mean |hidden| / mean over frames", col=1)
    return style.caption(made, found.attrs)


def stability(found: xr.Dataset) -> go.Figure:
    """Jaccard overlap of top channels between samples, over blocks. `found` is from `stability.sets`."""
    made = style.figure(f"stability of the top {found.attrs['k']} channels", "block", "Jaccard overlap", yaxis_range=[0, 1.02])
    for colour, (name, label) in zip(style.COLOURS, OVERLAPS.items(), strict=False):
        if found[name].notnull().any():
            marks.estimate(made, found, "block", name, label, colour)
    made.add_hline(y=float(found["chance"]), line=marks.DASHED, annotation_text="chance")
    return style.caption(made, found.attrs)


def energy(found: xr.Dataset) -> go.Figure:
    """Share of the energy that the top k channels hold, over blocks. `found` is from `energy.shares`."""
    made = style.figure("energy held by few channels", "block", "share of E[x²]", yaxis_range=[0, 1.02])
    for colour, k, here in marks.each(found, "k"):
        marks.estimate(made, here, "block", "share", f"top {k} (even split: {float(here['even']):.3f})", colour)
    return style.caption(made, found.attrs)


def outliers(found: xr.Dataset) -> go.Figure:
    """Sorted maxima per channel, one line per block: the range for a quantiser. `found` is from `energy.outliers`."""
    made = style.figure("largest |hidden| of every channel, sorted", "channel rank", "max |hidden|", yaxis_type="log")
    blocks = found["block"].to_numpy()
    for colour, block in zip(style.along(len(blocks)), blocks, strict=True):
        values = -np.sort(-found["largest"].sel(block=block).to_numpy())
        marks.dashed(made, np.arange(len(values)), values, f"block {block}", colour, "solid")
    return style.caption(made, found.attrs)


def token_norms(found: xr.Dataset) -> go.Figure:
    """Token norms with and without the massive channels. `found` is from `energy.token_norms`."""
    title = "token norms, with and without the massive channels"
    made = style.figure(title, "L2 norm of a token", "share of tokens", barmode="overlay")
    last = found.isel(block=-1)
    for colour, name, label in zip(style.COLOURS, ("norm", "excised"), ("all channels", "without them"), strict=False):
        values, marker = last[name].to_numpy().ravel(), {"color": colour}
        made.add_histogram(x=values, histnorm="probability", name=label, opacity=0.6, marker=marker, nbinsx=60)
    return style.caption(made, found.attrs)
