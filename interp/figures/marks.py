"""What figures draw: lines with intervals, error bars, heat maps and their clickable cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.figures import style
from interp.figures.style import COLOURS, CONTROL

MANY = 512  # bars; more are drawn as lines
DASHED = {"color": CONTROL, "dash": "dash"}
THIN = {"color": CONTROL, "width": 1}


def each(found: xr.Dataset, axis: str) -> Iterator[tuple[str, Any, xr.Dataset]]:
    """A colour, the value and its part of the data, for every value along an axis."""
    for number, value in enumerate(found[axis].to_numpy()):
        yield COLOURS[number % len(COLOURS)], value, found.sel({axis: value})


def ends(name: str) -> tuple[str, str]:
    """The variables that hold a variable's interval: `iou_low`, `iou_high`; of `value`, `low` and `high`."""
    stem = name.removesuffix("value") if name.endswith("value") else f"{name}_"
    return f"{stem}low", f"{stem}high"


def finite(found: xr.Dataset, name: str) -> xr.Dataset:
    """The part along its only axis where a variable is finite."""
    values = found[name]
    return found.isel({values.dims[0]: np.isfinite(values.to_numpy())})


def measured(found: xr.Dataset) -> xr.Dataset:
    """The measures that have a value anywhere."""
    values = found["value"].transpose("measure", ...).to_numpy().reshape(found.sizes["measure"], -1)
    return found.isel(measure=np.flatnonzero(np.isfinite(values).any(axis=1)))


def band(made: go.Figure, x: Any, low: Any, high: Any, colour: str) -> None:
    """An interval as a shaded band."""
    kept = np.isfinite(np.asarray(low, float)) & np.isfinite(np.asarray(high, float))  # a gap would split the shape
    x, low, high = (list(np.asarray(values)[kept]) for values in (x, low, high))
    fill = f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},0.18)"
    made.add_scatter(
        x=x + x[::-1],
        y=high + low[::-1],
        fill="toself",
        fillcolor=fill,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )


def line(made: go.Figure, x: Any, y: Any, name: str, colour: str) -> None:
    """A line with markers."""
    x, y = np.asarray(x), np.asarray(y)
    made.add_scatter(x=x, y=y, name=name, mode="lines+markers", line={"color": colour}, marker={"size": 5})


def estimate(made: go.Figure, found: xr.Dataset, axis: str, name: str, label: str, colour: str) -> None:
    """A variable over an axis as a line, its interval as a band; places without a value are left out."""
    found, (low, high) = finite(found, name), ends(name)
    band(made, found[axis], found[low], found[high], colour)
    line(made, found[axis], found[name], label, colour)


def dashed(made: go.Figure, x: Any, y: Any, name: str, colour: str = CONTROL, dash: str = "dash", **more: Any) -> None:
    """A line without markers, by default a control's: grey and dashed."""
    made.add_scatter(x=np.asarray(x), y=np.asarray(y), name=name, mode="lines", line={"color": colour, "dash": dash}, **more)


def error(found: xr.Dataset, name: str, **more: Any) -> dict[str, Any]:
    """Error bars from a variable's interval; none where it has none."""
    value, low, high = (found[part].to_numpy() for part in (name, *ends(name)))
    upper, lower = np.nan_to_num(high - value), np.nan_to_num(value - low)
    return {"type": "data", "symmetric": False, "array": upper, "arrayminus": lower, "thickness": 1, **more}


def intervals(
    made: go.Figure, places: Any, found: xr.Dataset, name: str, label: str = "", *, sideways: bool = False, **more: Any
) -> None:
    """A variable with its intervals as error bars, upwards or `sideways`. One label has one entry in the legend."""
    entry = {"name": label, "legendgroup": label, "showlegend": label not in {"", *(trace.name for trace in made.data)}}
    if sideways:
        drawn = {"x": found[name], "y": places, "error_x": error(found, name, color=CONTROL), "mode": "markers"}
    else:
        drawn = {"x": places, "y": found[name], "error_y": error(found, name), "mode": "lines+markers"}
    made.add_scatter(**{**drawn, **entry, **more})


def spikes(made: go.Figure, x: Any, y: Any, chosen: Any, named: Any) -> None:
    """One bar per channel, the chosen ones in another colour, numbers at the places `named`, and the median channel's line.

    More than MANY bars are drawn as two lines, which is fast.
    """
    x, y, chosen = np.asarray(x), np.asarray(y), np.asarray(chosen, bool)
    shown = {"showlegend": False, "hovertemplate": "channel %{x}: %{y:.4g}<extra></extra>"}
    for colour, some in ((COLOURS[0], ~chosen), (COLOURS[1], chosen)):
        if len(x) <= MANY:
            # plotly would make the few selected bars as wide as the gaps between them
            made.add_bar(x=x[some], y=y[some], width=1, marker={"color": colour, "line": {"width": 0}}, **shown)
            continue
        gaps = np.full(int(some.sum()), np.nan)
        made.add_scatter(
            x=np.stack([x[some], x[some], gaps], axis=1).ravel(),
            y=np.stack([np.zeros_like(gaps), y[some], gaps], axis=1).ravel(),
            mode="lines",
            line={"color": colour, "width": 1.5},
            **shown,
        )
    dashed(made, x[[0, -1]], [float(np.median(y))] * 2, "median channel")
    for place in named:
        made.add_annotation(x=x[place], y=y[place], text=str(x[place]), showarrow=False, yshift=10)


def heat(
    made: go.Figure,
    values: xr.DataArray,
    axes: tuple[str, str],
    *,
    hover: str = "",
    unit: str = "",
    most: float | None = None,
    signed: bool = False,
    **more: Any,
) -> go.Figure:
    """Values over two axes, (x, y), as colours, the first row on top. `most` ends the colour scale, symmetric if `signed`.

    `hover` is the text of a cell under the mouse, with its {value} and its coordinates by name.
    """
    here = values.transpose(*axes[::-1])
    here = here.assign_coords({axis: here[axis] for axis in axes})
    drawn = {
        "colorscale": "RdBu_r" if signed else style.SCALE,
        "zmin": None if most is None else -most if signed else 0,
        "zmax": most,
        "colorbar": {"title": unit},
        **more,
    }
    if hover:
        fields = {str(name): place.broadcast_like(here).to_numpy().ravel() for name, place in here.coords.items()}
        cells = zip(here.to_numpy().ravel(), *fields.values(), strict=True)
        texts = [hover.format(**dict(zip(("value", *fields), cell, strict=True))) for cell in cells]
        drawn |= {"text": np.reshape(texts, here.shape), "hovertemplate": "%{text}<extra></extra>"}
    x, y = (here[axis].to_numpy() for axis in axes)
    made.add_heatmap(z=here.to_numpy().astype(float), x=x, y=y, **drawn)
    return made.update_yaxes(autorange="reversed")


def heat_panels(
    title: str, values: xr.DataArray, titles: Sequence[str], *, unit: str, most: float, signed: bool = True, **more: Any
) -> go.Figure:
    """A heat map of (y, x) for every value along the first axis, with one colour scale. `values` is (axis, y, x)."""
    over, y, x = (str(axis) for axis in values.dims)
    made, places = style.panels(title, titles)
    for number, place in enumerate(places):
        one = values.isel({over: number})
        shown = {"name": str(one[over].item()), "showscale": place == places[-1], **place, **more}
        heat(made, one, (x, y), unit=unit, most=most, signed=signed, **shown)
    made.update_xaxes(title_text=x)
    return made.update_yaxes(title_text=y, row=1, col=1)


def framed(made: go.Figure, x: float, y: float) -> None:
    """A frame around the cell of a heat map at x, y."""
    line = {"color": COLOURS[1], "width": 3}
    made.add_shape(type="rect", x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line=line)


def clickable(made: go.Figure) -> go.Figure:
    """Add invisible markers on the cells of every heat map, with (x, y, the map's name) as data.

    Browsers report clicks on markers, not on heat maps.
    """
    maps = {"type": "heatmap"}
    for one in list(made.select_traces(maps)):
        x, y = (places.ravel() for places in np.meshgrid(one.x, one.y))
        made.add_scattergl(
            x=x,
            y=y,
            xaxis=one.xaxis,
            yaxis=one.yaxis,
            customdata=list(zip(x.tolist(), y.tolist(), [one.name] * x.size, strict=True)),
            text=np.ravel(one.text),
            hovertemplate="%{text}<extra></extra>",
            mode="markers",
            marker={"symbol": "square", "size": 14, "opacity": 0},
            showlegend=False,
            name="cells",
        )
    made.update_traces(hoverinfo="skip", hovertemplate=None, selector=maps)
    return made.update_layout(dragmode=False, clickmode="event+select")
