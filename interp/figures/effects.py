"""Figures of picture experiments: effects with intervals, and the pictures themselves."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from interp.figures import style

UNITS = {"structure": "0..1", "detail": "decades", "sharpness": "log2", "prompt_effect": "share"}
CELLS_WITH_TEXT = 60
SMALLEST_ENERGY = 1e-5
CONTROLS = ("random", "lowest", "displaced", "norms_as_if_zero")


def by_arm(found: xr.Dataset, title: str = "against the first arm's pictures") -> go.Figure:
    """Every measure of every arm with its interval; controls grey, the margin of "minimal" shaded where there is one."""
    names = [str(name) for name in found["measure"].to_numpy()]
    titles = [f"{name.replace('_', ' ')}, {UNITS[name]}" for name in names]
    made = style.subplots(1, len(names), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03)
    arms = [str(arm).replace("_", " ") for arm in found["arm"].to_numpy()]
    control = np.isin(found["kind"].to_numpy().astype(str), CONTROLS) if "kind" in found.coords else np.zeros(len(arms), bool)
    for number, name in enumerate(names):
        one, place = found.sel(measure=name), {"row": 1, "col": number + 1}
        value, low, high = (one[part].to_numpy() for part in ("value", "low", "high"))
        made.add_scatter(
            x=value,
            y=arms,
            mode="markers",
            marker={"size": 8, "color": [style.CONTROL if grey else style.COLOURS[0] for grey in control]},
            error_x=style.error(value, low, high, thickness=1.2, color=style.CONTROL),
            customdata=one["verdict"].to_numpy() if "verdict" in one else np.full(len(arms), "no verdict"),
            hovertemplate="%{y}: %{x:.3g} (%{customdata})<extra></extra>",
            showlegend=False,
            **place,
        )
        margin = float(one["margin"]) if "margin" in one else np.nan
        if np.isfinite(margin):
            made.add_vrect(x0=-margin, x1=margin, fillcolor=style.CONTROL, opacity=0.15, line_width=0, **place)
        made.add_vline(x=0, line={"color": style.CONTROL, "width": 1}, **place)
    made.update_yaxes(autorange="reversed")
    made.update_layout(
        title={"text": title, "font": {"size": 15}},
        height=150 + 26 * len(arms),
        margin={"l": 150, "r": 20, "t": 110, "b": 40},
    )
    return style.caption(made, found.attrs)


def disruption(found: xr.Dataset) -> go.Figure:
    """Effects of ablating channels, by arm. From `disruption.measure`."""
    return by_arm(found, f"Ablating channels {style.some(found.attrs['channels'])}: effect on pictures")


def dose(found: xr.Dataset) -> go.Figure:
    """Detail, sharpness and structure against the energy changed; one mark per dose. From `dose_response.response`."""
    names = [str(name) for name in found["measure"].to_numpy()]
    made = style.subplots(1, len(names), subplot_titles=[name.replace("_", " ") for name in names], horizontal_spacing=0.05)
    symbols = {"all": "circle", "early": "triangle-left", "late": "triangle-right"}
    colours = {"massive": style.COLOURS[0], "random": style.COLOURS[3], "lowest": style.CONTROL}
    for number, name in enumerate(names):
        for kind, colour in colours.items():
            one = found.sel(measure=name).isel(dose=np.flatnonzero(found["kind"].to_numpy() == kind))
            value = one["value"].to_numpy()
            made.add_scatter(
                x=np.maximum(one["amount"].to_numpy(), SMALLEST_ENERGY),
                y=value,
                mode="markers",
                name=f"{kind} channels",
                legendgroup=kind,
                showlegend=number == 0,
                marker={
                    "color": colour,
                    "size": 5 + 2 * np.sqrt(one["block_count"].to_numpy()),
                    "symbol": [symbols[str(window)] for window in one["window"].to_numpy()],
                    "opacity": 0.75,
                },
                error_y=style.error(value, one["low"].to_numpy(), one["high"].to_numpy(), thickness=0.7, width=2),
                customdata=np.stack([one["dose"].to_numpy(), one["outcome"].to_numpy()], axis=-1),
                hovertemplate="%{customdata[0]}: %{y:.2f} (%{customdata[1]})<extra></extra>",
                row=1,
                col=number + 1,
            )
        made.add_hline(y=0, line={"color": style.CONTROL, "width": 1}, row=1, col=number + 1)
    made.update_xaxes(type="log", title_text="share of the states' energy changed", dtick=1, exponentformat="power")
    made.update_yaxes(title_text="in units of its scale", row=1, col=1)
    made.update_layout(
        title={"text": "dose and response (marker: all, early or late steps; size: number of blocks)", "font": {"size": 15}},
        margin={"l": 60, "r": 20, "t": 120, "b": 60},
        legend={"orientation": "h", "y": -0.18},
        height=560,
        width=1200,
    )
    return style.caption(made, found.attrs)


def patch_grid(found: xr.Dataset) -> go.Figure:
    """Share recovered by block and step (or region), one heat map per patched quantity. From `patching.recovered`."""
    whats = [str(what) for what in found["what"].to_numpy()]
    titles = [f"{what} patched" for what in whats]
    made = style.subplots(1, len(whats), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03)
    most = max(0.05, float(abs(found["recovered"]).max()))
    few = found.sizes["block"] * found.sizes["column"] <= CELLS_WITH_TEXT
    for number, what in enumerate(whats):
        one = found.sel(what=what)
        bounds = np.stack([one["recovered_low"].to_numpy(), one["recovered_high"].to_numpy()], axis=-1)
        made.add_heatmap(
            z=one["recovered"].to_numpy(),
            x=[str(column) for column in one["column"].to_numpy()],
            y=[str(block) for block in one["block"].to_numpy()],
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
    made.update_yaxes(type="category", autorange="reversed")
    made.update_yaxes(title_text="block", row=1, col=1)
    made.update_layout(
        title={"text": f"share of the clean picture recovered by a patch ({found.attrs['metric']})", "font": {"size": 15}},
        margin={"l": 60, "r": 20, "t": 110, "b": 60},
    )
    return style.caption(made, found.attrs)


def patch_cells(made: go.Figure, found: xr.Dataset) -> go.Figure:
    """Clickable marks on every cell of a patch grid, with (column, block, what) as their data."""
    columns, blocks = ([str(value) for value in found[axis].to_numpy()] for axis in ("column", "block"))
    for number, what in enumerate(found["what"].to_numpy()):
        one = found.sel(what=what).transpose("block", "column")
        texts = [
            [
                f"{what} at block {block}, {column}: {float(c['recovered']):.3f} "
                f"[{float(c['recovered_low']):.3f}, {float(c['recovered_high']):.3f}]"
                for column in columns
                for c in [one.sel(block=int(block), column=column)]
            ]
            for block in blocks
        ]
        style.clickable(made, columns, blocks, texts, str(what), row=1, col=number + 1)
    return made


def transport(found: xr.Dataset, metric: str = "picture") -> go.Figure:
    """Fraction of the way from target to source by strength, per set of channels. From `patching.moved`."""
    made = style.figure("transport: from the target (0) to the source (1)", "strength", f"moved ({metric})")
    colours = {"massive": style.COLOURS[0], "control": style.CONTROL, "all": style.COLOURS[3]}
    for name in (str(name) for name in found["channels"].to_numpy()):
        one, colour = found.sel(metric=metric, channels=name), colours[name]
        style.band(made, one["strength"].to_numpy(), one["moved_low"].to_numpy(), one["moved_high"].to_numpy(), colour)
        style.line(made, one["strength"].to_numpy(), one["moved"].to_numpy(), f"{name} channels", colour)
    return style.caption(made, found.attrs)


def swap(found: xr.Dataset) -> go.Figure:
    """Effect of each swapped input on the channels' size, by block; massive solid, control dotted. From `factorial.split`."""
    title = f"channels {style.some(found.attrs['channels'])}: effect of swapped inputs on their size"
    made = style.figure(title, "block", "log2 of the size, root mean square over prompts")
    said = {"timestep": "timestep, early to late", "latents": "noise level, early to late"}
    for place, factor in enumerate(str(name) for name in found["factor"].to_numpy()):
        for group, dash in (("massive", "solid"), ("control", "dot")):
            one = found.sel(factor=factor, set=group)
            value = one["moved"].to_numpy()
            made.add_scatter(
                x=one["block"].to_numpy(),
                y=value,
                name=f"{said.get(factor, factor + ', own to other')}: {group}",
                mode="lines+markers",
                line={"color": style.COLOURS[place], "dash": dash},
                marker={"size": 5},
                error_y=style.error(value, one["moved_low"].to_numpy(), one["moved_high"].to_numpy(), thickness=0.8, width=2),
            )
    made.update_xaxes(dtick=1)
    return style.caption(made, found.attrs)


def govern(found: xr.Dataset) -> go.Figure:
    """Size of the edited channels over their original size, by block: a panel a gate, a line an edit. From `interp.govern`."""
    kept = found.isel(gate=found["ratio"].notnull().any(["arm", "block", "measured"]).to_numpy())
    names = [str(name) for name in kept["gate"].to_numpy()]
    made = style.subplots(1, len(names), shared_yaxes=True, subplot_titles=[f"alpha.{name}" for name in names])
    for number, name in enumerate(names):
        for place, arm in enumerate(str(arm) for arm in kept["arm"].to_numpy()):
            one = kept.sel(gate=name, arm=arm, measured="own")
            value = one["ratio"].to_numpy()
            made.add_scatter(
                x=one["block"].to_numpy(),
                y=value,
                name=arm.replace("_", " "),
                legendgroup=arm,
                showlegend=number == 0,
                mode="lines+markers",
                line={"color": style.COLOURS[place]},
                error_y=style.error(value, one["ratio_low"].to_numpy(), one["ratio_high"].to_numpy(), thickness=0.8, width=2),
                row=1,
                col=number + 1,
            )
        made.add_hline(y=1, line={"color": style.CONTROL, "width": 1}, row=1, col=number + 1)
    made.update_xaxes(title_text="block", tickvals=kept["block"].to_numpy())
    made.update_yaxes(type="log")
    made.update_yaxes(title_text="size of the edited channels / original", row=1, col=1)
    title = f"alpha edited at channels {style.some(found.attrs['channels'])}: size at the edited block"
    made.update_layout(title={"text": title, "font": {"size": 15}}, margin={"l": 70, "r": 20, "t": 110, "b": 60})
    return style.caption(made, found.attrs)
