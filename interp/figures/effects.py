"""Figures of picture experiments: effects with intervals, and the pictures themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.figures import marks, style

UNITS = {"structure": "0..1", "detail": "decades", "sharpness": "log2", "prompt_effect": "share"}
CELLS_WITH_TEXT = 60
SMALLEST_ENERGY = 1e-5
DOSED = {"massive": style.COLOURS[0], "random": style.COLOURS[3], "lowest": style.CONTROL}
WINDOWS = {"all": "circle", "early": "triangle-left", "late": "triangle-right"}
CONTROLS = ("random", "lowest", "displaced", "norms_as_if_zero")


def by_arm(found: xr.Dataset, title: str = "against the first arm's pictures") -> go.Figure:
    """Every measure of every arm with its interval; controls grey, the margin of "minimal" shaded where there is one."""
    found = marks.measured(found)
    names = [str(name) for name in found["measure"].to_numpy()]
    arms = [str(arm).replace("_", " ") for arm in found["arm"].to_numpy()]
    control = np.isin(found["kind"].to_numpy().astype(str), CONTROLS) if "kind" in found.coords else np.zeros(len(arms), bool)
    marker = {"size": 8, "color": [style.CONTROL if grey else style.COLOURS[0] for grey in control]}
    titles = [f"{name.replace('_', ' ')}, {UNITS[name]}" for name in names]
    made, places = style.panels(title, titles, height=150 + 26 * len(arms))
    for name, place in zip(names, places, strict=True):
        one = found.sel(measure=name)
        verdicts = one["verdict"].to_numpy() if "verdict" in one else np.full(len(arms), "no verdict")
        hover: dict[str, Any] = {"customdata": verdicts, "hovertemplate": "%{y}: %{x:.3g} (%{customdata})<extra></extra>"}
        marks.intervals(made, arms, one, "value", sideways=True, marker=marker, **hover, **place)
        margin = float(one["margin"]) if "margin" in one else np.nan
        if np.isfinite(margin):
            made.add_vrect(x0=-margin, x1=margin, fillcolor=style.CONTROL, opacity=0.15, line_width=0, **place)
        made.add_vline(x=0, line=marks.THIN, **place)
    made.update_yaxes(autorange="reversed")
    return style.caption(made, found.attrs)


def disruption(found: xr.Dataset) -> go.Figure:
    """Effects of ablating channels, by arm. From `disruption.measure`."""
    channels = list(found.attrs["channels"])
    noun = "channel" if len(channels) == 1 else "channels"
    return by_arm(found, f"Ablating {noun} {style.some(channels)}: effect on pictures")


def dose(found: xr.Dataset) -> go.Figure:
    """Detail, sharpness and structure against the energy changed; one mark per dose. From `disruption.response`."""
    found = marks.measured(found)
    names = [str(name) for name in found["measure"].to_numpy()]
    title = "dose and response (marker: all, early or late steps; size: number of blocks)"
    titles, legend = [name.replace("_", " ") for name in names], {"orientation": "h", "y": -0.18}
    made, places = style.panels(title, titles, shared=False, legend=legend, height=560, width=1200)
    for name, place in zip(names, places, strict=True):
        for kind, colour in DOSED.items():
            one = found.sel(measure=name).isel(dose=np.flatnonzero(found["kind"].to_numpy() == kind))
            marker = {
                "color": colour,
                "size": 5 + 2 * np.sqrt(one["block_count"].to_numpy()),
                "symbol": [WINDOWS[str(window)] for window in one["window"].to_numpy()],
                "opacity": 0.75,
            }
            hover: dict[str, Any] = {
                "customdata": np.stack([one["dose"].to_numpy(), one["outcome"].to_numpy()], axis=-1),
                "hovertemplate": "%{customdata[0]}: %{y:.2f} (%{customdata[1]})<extra></extra>",
            }
            energy = np.maximum(one["amount"].to_numpy(), SMALLEST_ENERGY)
            marks.intervals(made, energy, one, "value", f"{kind} channels", mode="markers", marker=marker, **hover, **place)
        made.add_hline(y=0, line=marks.THIN, **place)
    made.update_xaxes(type="log", title_text="share of the states' energy changed", dtick=1, exponentformat="power")
    made.update_yaxes(title_text="in units of its scale", row=1, col=1)
    return style.caption(made, found.attrs)


def patch_grid(found: xr.Dataset) -> go.Figure:
    """Share recovered by block and step (or region), one heat map per patched quantity. From `patching.recovered`."""
    bounds = {end: found[f"recovered_{end}"] for end in ("low", "high")}
    value = found["recovered"].assign_coords(bounds).transpose("what", "block", "column")
    made = marks.heat_panels(
        f"share of the clean picture recovered by a patch ({found.attrs['metric']})",
        value,
        [f"{what} patched" for what in found["what"].to_numpy()],
        unit="recovered",
        most=max(0.05, float(abs(value).max())),
        hover="{what} at block {block}, {column}: {value:.3f} [{low:.3f}, {high:.3f}]",
        texttemplate="%{z:.2f}" if value[0].size <= CELLS_WITH_TEXT else None,
        textfont={"size": 9},
    )
    made.update_xaxes(title_text="steps" if found.attrs["columns"] == "steps" else "region", type="category")
    made.update_yaxes(type="category")
    return style.caption(made, found.attrs)


def transport(found: xr.Dataset, metric: str = "picture") -> go.Figure:
    """Fraction of the way from target to source per set of channels and control, by strength, or of the only strength. From
    `patching.moved`.
    """
    here, title = found.sel(metric=metric), "transport: from the target (0) to the source (1)"
    names = {name: _of_moved(name) for name in here["channels"].to_numpy().astype(str).tolist()}
    if here.sizes["strength"] == 1:
        made = style.figure(title, f"moved ({metric}), strength {float(here['strength'][0]):g}", "", height=360)
        colours = [style.CONTROL if "control" in name else style.COLOURS[0] for name in names.values()]
        marks.intervals(
            made, list(names.values()), here.isel(strength=0), "moved", sideways=True, marker={"size": 9, "color": colours}
        )
        made.update_yaxes(autorange="reversed")
        return style.caption(made, found.attrs)
    made = style.figure(title, "strength", f"moved ({metric})")
    for colour, name, one in marks.each(here, "channels"):
        marks.estimate(made, one, "strength", "moved", names[name], style.CONTROL if name == "control" else colour)
    return style.caption(made, found.attrs)


def _of_moved(name: str) -> str:
    """The name of a set of channels, or of a control."""
    said = "ordinary channels" if name == "control" else name
    return f"{name} channels" if name in ("massive", "all") else f"{said} (control)"


def swap(found: xr.Dataset) -> go.Figure:
    """Effect of each swapped input on the channels' size, by block; massive solid, control dotted. From `factorial.split`."""
    title = f"channels {style.some(found.attrs['channels'])}: effect of swapped inputs on their size"
    made = style.figure(title, "block", "log2 of the size, root mean square over prompts")
    hover = {"timestep": "timestep, early to late", "latents": "noise level, early to late"}
    for colour, factor, here in marks.each(found, "factor"):
        for group, dash in (("massive", "solid"), ("control", "dot")):
            name = f"{hover.get(factor, factor + ', own to other')}: {group}"
            look: dict[str, Any] = {"line": {"color": colour, "dash": dash}, "marker": {"size": 5}}
            marks.intervals(made, here["block"], here.sel(set=group), "moved", name, **look)
    made.update_xaxes(dtick=1)
    return style.caption(made, found.attrs)


def govern(found: xr.Dataset) -> go.Figure:
    """Size of the edited channels over their original size, by block: a panel a gate, a line an edit. From `interp.govern`."""
    kept = found.isel(gate=found["ratio"].notnull().any(["arm", "block", "measured"]).to_numpy()).sel(measured="own")
    title = f"alpha edited at channels {style.some(found.attrs['channels'])}: size at the edited block"
    made, places = style.panels(title, [f"alpha.{gate}" for gate in kept["gate"].to_numpy()])
    for number, place in enumerate(places):
        for colour, arm, one in marks.each(kept.isel(gate=number), "arm"):
            marks.intervals(made, one["block"], one, "ratio", str(arm).replace("_", " "), line={"color": colour}, **place)
        made.add_hline(y=1, line=marks.THIN, **place)
    made.update_xaxes(title_text="block", tickvals=kept["block"].to_numpy())
    made.update_yaxes(type="log").update_yaxes(title_text="size of the edited channels / original", row=1, col=1)
    return style.caption(made, found.attrs)
