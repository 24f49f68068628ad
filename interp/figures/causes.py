"""Figures of what sets and writes channels: alignment, attribution, gates, residual."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.figures import style


def alignment(found: xr.Dataset, *, target: str = "hidden") -> go.Figure:
    """Rank correlation of |alpha| with mean |hidden| over blocks, with another block's alpha. From `alignment.compare`."""
    what = "mean |hidden|" if target == "hidden" else "|update|"
    made = style.figure(f"|alpha| against {what}", "block", "Spearman correlation over channels", yaxis_range=[-1, 1])
    blocks = found["block"].to_numpy()
    for number, gate in enumerate(found["gate"].to_numpy()):
        here, colour = found.sel(gate=gate, target=target), style.COLOURS[number]
        kept = np.isfinite(here["correlation"].to_numpy())
        low, high = here["correlation_low"].to_numpy()[kept], here["correlation_high"].to_numpy()[kept]
        style.band(made, blocks[kept], low, high, colour)
        style.line(made, blocks[kept], here["correlation"].to_numpy()[kept], f"alpha.{gate}", colour)
        made.add_scatter(
            x=blocks[kept],
            y=here["other_block"].to_numpy()[kept],
            name=f"another block's alpha.{gate}",
            mode="lines",
            line={"color": colour, "dash": "dash"},
        )
    return style.caption(made, found.attrs)


def attribution(found: xr.Dataset, *, channel: int | None = None) -> go.Figure:
    """Stacked shares of a channel's variance over blocks; the mean of other channels hatched. From `attribution.decompose`."""
    channel = int(found["channel"][0]) if channel is None else channel
    title = f"variance of channel {channel} by source: {found.attrs['quantity']} (hatched: mean of other channels)"
    made = style.figure(title, "block", "share of variance", barmode="relative", bargap=0.25, yaxis_range=[0, 1.02])
    blocks = [str(block) for block in found["block"].to_numpy()]
    for number, term in enumerate(found["term"].to_numpy()):
        colour = style.COLOURS[number % len(style.COLOURS)]
        share = found["share"].sel(term=term, channel=channel).to_numpy()
        made.add_bar(x=blocks, y=share, name=str(term), marker={"color": colour}, offsetgroup="channel")
        other = found["ordinary"].sel(term=term).to_numpy()
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
    made = style.figure(title, "timestep (sampling runs to the right)", "mean |hidden|")
    here = sizes.transpose("prompt", "step")
    times, values = here["timestep"].to_numpy(), here.to_numpy()
    style.band(made, times, values.min(axis=0), values.max(axis=0), style.CONTROL)
    low, high = np.quantile(values, (0.05, 0.95), axis=0)
    style.band(made, times, low, high, style.COLOURS[0])
    style.line(made, times, values.mean(axis=0), f"mean of {len(values)} rows (blue: middle 90%; grey: all)", style.COLOURS[0])
    if prompt is not None:
        one = here.sel(prompt=prompt)
        text = str(one["prompt_text"].item()) if "prompt_text" in one.coords else ""
        style.line(made, times, one.to_numpy(), style.short(f"row {prompt}: {text}", 60), style.COLOURS[1])
    made.update_xaxes(autorange="reversed").update_yaxes(rangemode="tozero")
    made.update_layout(legend={"orientation": "h", "y": -0.22})
    return style.caption(made, sizes.attrs)


def variance(found: xr.Dataset) -> go.Figure:
    """Share of the variance over rows and steps explained by the step alone, over blocks. From `glance.variance`."""
    made = style.figure("variance explained by the timestep alone", "block", "share of variance", yaxis_range=[0, 1.02])
    blocks = found["block"].to_numpy()
    for number, channel in enumerate(found["channel"].to_numpy()):
        values, colour = found["timestep"].sel(channel=channel).to_numpy(), style.COLOURS[number % len(style.COLOURS)]
        style.line(made, blocks, values, f"channel {channel}", colour)
    style.control(made, blocks, found["ordinary"].to_numpy(), "median channel")
    return style.caption(made, found.attrs)


def gate_grid(alpha: xr.DataArray) -> go.Figure:
    """Alpha of one channel over steps and blocks, one heat map per gate. From `glance.alpha`."""
    names = [str(gate) for gate in alpha["gate"].to_numpy()]
    made = style.subplots(1, len(names), shared_yaxes=True, subplot_titles=[f"alpha.{name}" for name in names])
    most = float(abs(alpha).max())
    for number in range(len(names)):
        one = alpha.isel(gate=number).transpose("block", "step")
        made.add_heatmap(
            z=one.to_numpy(),
            x=one["step"],
            y=one["block"],
            colorscale="RdBu_r",
            zmin=-most,
            zmax=most,
            colorbar={"title": "alpha"},
            showscale=number == len(names) - 1,
            hovertemplate="block %{y}, step %{x}: %{z:.3g}<extra></extra>",
            row=1,
            col=number + 1,
        )
    made.update_xaxes(title_text="step")
    made.update_yaxes(autorange="reversed")
    made.update_yaxes(title_text="block", row=1, col=1)
    title = f"alpha at channel {int(alpha['channel'])}, {alpha['stream'].item()} stream"
    made.update_layout(title={"text": title, "font": {"size": 15}}, margin={"t": 90, "b": 60})
    return style.caption(made, alpha.attrs)


def alpha_and_size(found: xr.Dataset, *, selected: Sequence[int] = ()) -> go.Figure:
    """Every channel's |alpha| against its size at one block; massive ones ringed. From `glance.alpha_and_size`."""
    title = f"|alpha| against size, block {int(found['block'])}, {found['stream'].item()} stream"
    made = style.figure(title, "mean |hidden|", "|alpha|", xaxis_type="log", yaxis_type="log")
    size, channel = found["size"].to_numpy(), found["channel"].to_numpy()
    chosen = np.isin(channel, list(selected))
    for number, gate in enumerate(found["gate"].to_numpy()):
        made.add_scattergl(
            x=size,
            y=found["alpha"].sel(gate=gate).to_numpy(),
            customdata=channel,
            name=f"alpha.{gate}",
            mode="markers",
            marker={
                "size": np.where(chosen, 12, 5),
                "color": style.COLOURS[number],
                "symbol": np.where(chosen, "diamond", ("circle", "square")[number % 2]),
            },
            hovertemplate="channel %{customdata}: size %{x:.3g}, |alpha| %{y:.3g}<extra></extra>",
        )
    made.update_xaxes(**style.log_ticks(size)).update_yaxes(**style.log_ticks(found["alpha"]))
    return style.caption(made, found.attrs)


def factors(found: xr.Dataset, *, channel: int | None = None) -> go.Figure:
    """Alpha, branch and their product for every writer, averaged over steps. From `residual.decompose`."""
    channel = int(found["channel"][0]) if channel is None else channel
    here = found.sel(channel=channel)
    writers = [str(name) for name in here["writer"].to_numpy()]
    parts = {"alpha": here["alpha"], "branch (mean over tokens)": here["branch"], "contribution": here["contribution"]}
    made = style.subplots(3, 1, shared_xaxes=True, subplot_titles=list(parts), vertical_spacing=0.1)
    for row, values in enumerate(parts.values()):
        colour = {"color": style.COLOURS[row]}
        made.add_bar(x=writers, y=values.mean("step").to_numpy(), marker=colour, showlegend=False, row=row + 1, col=1)
    made.update_layout(
        title={"text": f"alpha times branch, channel {channel}", "font": {"size": 15}},
        margin={"l": 70, "r": 30, "t": 90, "b": 60},
        height=560,
    )
    return style.caption(made, found.attrs)


def residual(found: xr.Dataset, *, channel: int | None = None) -> go.Figure:
    """Every writer's contribution to a channel, averaged over steps, and the running sum. From `residual.decompose`."""
    channel = int(found["channel"][0]) if channel is None else channel
    here = found[["over_steps", "over_steps_low", "over_steps_high", "birth"]].sel(channel=channel)
    made = style.figure(f"contributions to channel {channel}", "writer", "contribution to the mean over tokens")
    writers = [str(name) for name in here["writer"].to_numpy()]
    value = here["over_steps"].to_numpy()
    error = {
        "array": here["over_steps_high"].to_numpy() - value,
        "arrayminus": value - here["over_steps_low"].to_numpy(),
        "color": style.CONTROL,
    }
    made.add_bar(x=writers, y=value, error_y=error, name="contribution", marker={"color": style.COLOURS[0]})
    made.add_scatter(
        x=writers, y=np.cumsum(value), name="running sum", mode="lines+markers", line={"color": style.COLOURS[1], "shape": "hv"}
    )
    style.control(made, writers, found["ordinary"].mean("step").to_numpy(), "median |contribution|, other channels")
    born = [name for name in writers if name.startswith(f"block.{int(here['birth'])}/")]
    if born:
        text = f"born in block {int(here['birth'])}"
        made.add_vline(x=writers.index(born[0]), line={"color": style.CONTROL, "dash": "dot"}, annotation_text=text)
    return style.caption(made, found.attrs)


def comparison(found: xr.Dataset) -> go.Figure:
    """Largest channel over the median channel by depth, one line per run: DG Figs. 3b, 3c. From `comparison.runs`."""
    made = style.figure("largest channel over the median channel", "depth (block / last block)", "ratio", yaxis_type="log")
    for number, run in enumerate(found["run"].to_numpy()):
        here, colour = found.sel(run=run), style.COLOURS[number % len(style.COLOURS)]
        kept = np.isfinite(here["ratio"].to_numpy())
        depth = here["depth"].to_numpy()[kept]
        style.band(made, depth, here["ratio_low"].to_numpy()[kept], here["ratio_high"].to_numpy()[kept], colour)
        style.line(made, depth, here["ratio"].to_numpy()[kept], style.plain(str(run)), colour)
        made.add_scatter(
            x=depth,
            y=here["second"].to_numpy()[kept],
            name=f"{style.plain(str(run))}, second largest",
            mode="lines",
            line={"color": colour, "dash": "dot"},
            showlegend=False,
        )
    return style.caption(made, found.attrs)
