"""Figures of what sets and writes channels: alignment, attribution, gates, residual."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.figures import marks, style


def alignment(found: xr.Dataset, *, target: str = "hidden") -> go.Figure:
    """Rank correlation of |alpha| with mean |hidden| over blocks, with another block's alpha. From `alignment.compare`."""
    what = "mean |hidden|" if target == "hidden" else "|update|"
    made = style.figure(f"|alpha| against {what}", "block", "Spearman correlation over channels", yaxis_range=[-1, 1])
    for colour, gate, here in marks.each(found.sel(target=target), "gate"):
        kept = marks.finite(here, "correlation")
        marks.estimate(made, kept, "block", "correlation", f"alpha.{gate}", colour)
        marks.dashed(made, kept["block"], kept["other_block"], f"another block's alpha.{gate}", colour)
    return style.caption(made, found.attrs)


def attribution(found: xr.Dataset, *, channel: int | None = None) -> go.Figure:
    """Stacked shares of a channel's variance over blocks; the mean of other channels hatched. From `attribution.decompose`."""
    channel = int(found["channel"][0]) if channel is None else channel
    title = f"variance of channel {channel} by source: {found.attrs['quantity']} (hatched: others)"
    made = style.figure(title, "block", "share of variance", barmode="relative", bargap=0.25, yaxis_range=[0, 1.02])
    blocks = [str(block) for block in found["block"].to_numpy()]
    for colour, term, here in marks.each(found, "term"):
        share, other = here["share"].sel(channel=channel).to_numpy(), here["ordinary"].to_numpy()
        made.add_bar(x=blocks, y=share, name=str(term), marker={"color": colour}, offsetgroup="channel")
        hatched = {"color": colour, "pattern": {"shape": "/"}, "opacity": 0.45}
        made.add_bar(x=blocks, y=other, name=f"{term}, other channels", marker=hatched, offsetgroup="others", showlegend=False)
    return style.caption(made, found.attrs)


def gates(found: xr.Dataset, *, player: str | None = None) -> go.Figure:
    """Shapley share of one player, by default the first, of every gate, over channels. From `interp.gates`."""
    player = str(found["player"][0].item()) if player is None else player
    here = found["shapley"].sel(player=player).stack(row=("stream", "block", "gate")).transpose("row", "channel")
    here = here.dropna("row", how="all")
    labels = [f"{stream} {block}/{gate}" for stream, block, gate in here["row"].to_numpy()]
    made = style.figure(f"share of alpha's variance set by the {player}", "channel", "stream block / gate")
    x = [str(channel) for channel in here["channel"].to_numpy()] if here.sizes["channel"] < 40 else here["channel"]
    made.add_heatmap(z=here.to_numpy(), x=x, y=labels, zmin=0, zmax=1, colorscale=style.SCALE, colorbar={"title": "share"})
    made.update_xaxes(type="category" if here.sizes["channel"] < 40 else None)
    made.update_yaxes(autorange="reversed", type="category", dtick=1)
    made.update_layout(height=max(450, 180 + 14 * len(labels)))
    return style.caption(made, found.attrs)


def curves(sizes: xr.DataArray, *, prompt: int | None = None) -> go.Figure:
    """One channel at one block over steps: mean, middle 90% and extremes of the rows, and one selected row.

    `sizes` is (prompt, step), such as `run.stats["mean_abs"].sel(block=3, stream="image", channel=29)`.
    """
    title = f"channel {int(sizes['channel'])} at block {int(sizes['block'])}: every row"
    legend = {"orientation": "h", "y": -0.22}
    made = style.figure(title, "timestep (sampling runs to the right)", "mean |hidden|", legend=legend)
    here = sizes.transpose("prompt", "step")
    times, values = here["timestep"].to_numpy(), here.to_numpy()
    marks.band(made, times, values.min(axis=0), values.max(axis=0), style.CONTROL)
    low, high = np.quantile(values, (0.05, 0.95), axis=0)
    marks.band(made, times, low, high, style.COLOURS[0])
    marks.line(made, times, values.mean(axis=0), f"mean of {len(values)} rows (blue: middle 90%; grey: all)", style.COLOURS[0])
    if prompt is not None:
        one = here.sel(prompt=prompt)
        text = str(one["prompt_text"].item()) if "prompt_text" in one.coords else ""
        marks.line(made, times, one, style.short(f"row {prompt}: {text}", 60), style.COLOURS[1])
    made.update_xaxes(autorange="reversed").update_yaxes(rangemode="tozero")
    return style.caption(made, sizes.attrs)


def variance(found: xr.Dataset) -> go.Figure:
    """Share of the variance over rows and steps explained by the step alone, over blocks. From `glance.variance`."""
    made = style.figure("variance explained by the timestep alone", "block", "share of variance", yaxis_range=[0, 1.02])
    for colour, channel, here in marks.each(found, "channel"):
        marks.line(made, found["block"], here["timestep"], f"channel {channel}", colour)
    marks.dashed(made, found["block"], found["ordinary"], "median channel")
    return style.caption(made, found.attrs)


def gate_grid(alpha: xr.DataArray) -> go.Figure:
    """Alpha of one channel over steps and blocks, one heat map per gate. From `glance.alpha`."""
    made = marks.heat_panels(
        f"alpha at channel {int(alpha['channel'])}, {alpha['stream'].item()} stream",
        alpha.transpose("gate", "block", "step"),
        [f"alpha.{gate}" for gate in alpha["gate"].to_numpy()],
        unit="alpha",
        most=float(abs(alpha).max()),
        hover="block {block}, step {step}, timestep {timestep:.0f}: {value:.4g}",
    )
    return style.caption(made, alpha.attrs)


def alpha_and_size(found: xr.Dataset, *, selected: Sequence[int] = ()) -> go.Figure:
    """Every channel's |alpha| against its size at one block; massive ones ringed. From `glance.alpha_and_size`."""
    title = f"|alpha| against size, block {int(found['block'])}, {found['stream'].item()} stream"
    made = style.figure(title, "mean |hidden|", "|alpha|", xaxis_type="log", yaxis_type="log")
    size, channel = found["size"].to_numpy(), found["channel"].to_numpy()
    chosen = np.isin(channel, list(selected))
    for number, (colour, gate, here) in enumerate(marks.each(found, "gate")):
        made.add_scattergl(
            x=size,
            y=here["alpha"].to_numpy(),
            customdata=channel,
            name=f"alpha.{gate}",
            mode="markers",
            marker={
                "size": np.where(chosen, 12, 5),
                "color": colour,
                "symbol": np.where(chosen, "diamond", ("circle", "square")[number % 2]),
            },
            hovertemplate="channel %{customdata}: size %{x:.3g}, |alpha| %{y:.3g}<extra></extra>",
        )
    made.update_xaxes(**style.log_ticks(size)).update_yaxes(**style.log_ticks(found["alpha"]))
    return style.caption(made, found.attrs)


def factors(found: xr.Dataset, *, channel: int | None = None) -> go.Figure:
    """Alpha, branch and their product for every writer, averaged over steps. From `residual.decompose`."""
    channel = int(found["channel"][0]) if channel is None else channel
    here = found[["alpha", "branch", "contribution"]].sel(channel=channel).mean("step")
    writers = [str(name) for name in here["writer"].to_numpy()]
    parts = {"alpha": "alpha", "branch (mean over tokens)": "branch", "contribution": "contribution"}
    made, places = style.panels(f"alpha times branch, channel {channel}", list(parts), columns=1, height=560)
    for colour, name, place in zip(style.COLOURS, parts.values(), places, strict=False):
        made.add_bar(x=writers, y=here[name].to_numpy(), marker={"color": colour}, showlegend=False, **place)
    return style.caption(made, found.attrs)


def residual(found: xr.Dataset, *, channel: int | None = None) -> go.Figure:
    """Every writer's contribution to a channel, averaged over steps, and the running sum. From `residual.decompose`."""
    channel = int(found["channel"][0]) if channel is None else channel
    here = found[["over_steps", "over_steps_low", "over_steps_high", "half_written"]].sel(channel=channel)
    made = style.figure(f"contributions to channel {channel}", "writer", "contribution to the mean over tokens")
    writers = [str(name) for name in here["writer"].to_numpy()]
    value, bars = here["over_steps"].to_numpy(), marks.error(here, "over_steps", color=style.CONTROL)
    made.add_bar(x=writers, y=value, error_y=bars, name="contribution", marker={"color": style.COLOURS[0]})
    line = {"color": style.COLOURS[1], "shape": "hv"}
    made.add_scatter(x=writers, y=np.cumsum(value), name="running sum", mode="lines+markers", line=line)
    marks.dashed(made, writers, found["ordinary"].mean("step"), "median |contribution|, other channels")
    born = [name for name in writers if name.startswith(f"block.{int(here['half_written'])}/")]
    if born:
        text = f"half written by block {int(here['half_written'])}"
        made.add_vline(x=writers.index(born[0]), line={"color": style.CONTROL, "dash": "dot"}, annotation_text=text)
    return style.caption(made, found.attrs)


def comparison(found: xr.Dataset) -> go.Figure:
    """Largest channel over the median channel by depth, one line per run: DG Figs. 3b, 3c. From `comparison.runs`."""
    made = style.figure("largest channel over the median channel", "depth (block / last block)", "ratio", yaxis_type="log")
    for colour, run, here in marks.each(found, "run"):
        kept, name = marks.finite(here, "ratio"), style.plain(str(run))
        marks.estimate(made, kept, "depth", "ratio", name, colour)
        marks.dashed(made, kept["depth"], kept["second"], f"{name}, second largest", colour, "dot", showlegend=False)
    return style.caption(made, found.attrs)
