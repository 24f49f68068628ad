"""Figures of what sets and writes channels: alignment, attribution, gates, residual."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.figures import style


def alignment(found: xr.Dataset, *, target: str = "hidden") -> go.Figure:
    """Rank correlation of |alpha| with mean |hidden| over blocks, beside another block's alpha. From `alignment.compare`."""
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
    """Shares of a channel's variance, stacked, over blocks; the other channels' mean hatched. From `attribution.decompose`."""
    channel = int(found["channel"][0]) if channel is None else channel
    title = f"what sets channel {channel}: {found.attrs['quantity']} (hatched: mean of the others)"
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


def gates(found: xr.Dataset, *, stream: str = "image", player: str = "text") -> go.Figure:
    """Shapley share of one player in every gate, block x channel. From `gates.tabulate`."""
    here = found["shapley"].sel(stream=stream, player=player)
    rows, labels = [], []
    for block in here["block"].to_numpy():
        for gate in here["gate"].to_numpy():
            values = here.sel(block=block, gate=gate).to_numpy()
            if np.isfinite(values).any():
                rows.append(values)
                labels.append(f"{block}/{gate}")
    made = style.figure(f"share of alpha's variance set by the {player}, {stream} stream", "channel", "block / gate")
    x = [str(channel) for channel in here["channel"].to_numpy()] if here.sizes["channel"] < 40 else here["channel"]
    made.add_heatmap(z=rows, x=x, y=labels, zmin=0, zmax=1, colorscale=style.SCALE, colorbar={"title": "share"})
    made.update_yaxes(autorange="reversed", type="category")
    return style.caption(made, found.attrs)


def residual(found: xr.Dataset, *, channel: int | None = None) -> go.Figure:
    """What every writer adds to a channel, averaged over steps, and the running sum. From `residual.decompose`."""
    channel = int(found["channel"][0]) if channel is None else channel
    here = found[["over_steps", "over_steps_low", "over_steps_high"]].sel(channel=channel)
    made = style.figure(f"who writes channel {channel}", "writer", "contribution to the mean over tokens")
    writers = [str(name) for name in here["writer"].to_numpy()]
    value = here["over_steps"].to_numpy()
    error = {
        "array": here["over_steps_high"].to_numpy() - value,
        "arrayminus": value - here["over_steps_low"].to_numpy(),
        "color": "#444444",
    }
    made.add_bar(x=writers, y=value, error_y=error, name="contribution", marker={"color": style.COLOURS[0]})
    made.add_scatter(
        x=writers, y=np.cumsum(value), name="running sum", mode="lines+markers", line={"color": style.COLOURS[1], "shape": "hv"}
    )
    style.control(made, writers, found["ordinary"].mean("step").to_numpy(), "median |contribution|, other channels")
    return style.caption(made, found.attrs)


def comparison(found: xr.Dataset) -> go.Figure:
    """Largest channel over the median channel along depth, a line a run: DG Figs. 3b, 3c. From `comparison.runs`."""
    made = style.figure("largest channel over the median channel", "depth (block / last block)", "ratio", yaxis_type="log")
    for number, run in enumerate(found["run"].to_numpy()):
        here, colour = found.sel(run=run), style.COLOURS[number % len(style.COLOURS)]
        kept = np.isfinite(here["ratio"].to_numpy())
        depth = here["depth"].to_numpy()[kept]
        style.band(made, depth, here["ratio_low"].to_numpy()[kept], here["ratio_high"].to_numpy()[kept], colour)
        style.line(made, depth, here["ratio"].to_numpy()[kept], str(run), colour)
        made.add_scatter(
            x=depth,
            y=here["second"].to_numpy()[kept],
            name=f"{run}, second largest",
            mode="lines",
            line={"color": colour, "dash": "dot"},
            showlegend=False,
        )
    return style.caption(made, found.attrs)
