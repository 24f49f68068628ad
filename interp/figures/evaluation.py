"""Figures of evaluations: every setting's scores with intervals, and the baseline's."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from interp.figures import style

COLUMNS = 3


def scores(found: xr.Dataset) -> go.Figure:
    """One panel per measure of pictures: each setting's value and interval, the baseline as a line. From `evaluate`."""
    measures = [str(name) for name in found["measure"].to_numpy()]
    return _panels(found, measures, "measure", ("value", "low", "high"), "better", "scores of pictures")


def set_scores(found: xr.Dataset) -> go.Figure:
    """The same for measures of whole sets, which are not paired with the baseline."""
    measures = [str(name) for name in found["set_measure"].to_numpy()]
    return _panels(found, measures, "set_measure", ("set_value", "set_low", "set_high"), "set_better", "scores of sets")


def _panels(
    found: xr.Dataset, measures: list[str], axis: str, names: tuple[str, str, str], better: str, title: str
) -> go.Figure:
    rows, columns = -(-len(measures) // COLUMNS), min(len(measures), COLUMNS)
    said = [f"{name} ({found[better].sel({axis: name}).item()} is better)" for name in measures]
    made = style.subplots(rows, columns, subplot_titles=said, shared_yaxes=True, horizontal_spacing=0.04, vertical_spacing=0.14)
    settings = [style.short(str(setting), 40) for setting in found["setting"].to_numpy()]
    base = [str(setting) for setting in found["setting"].to_numpy()].index(str(found.attrs["baseline"]))
    for number, name in enumerate(measures):
        value, low, high = (found[part].sel({axis: name}).to_numpy() for part in names)
        place = {"row": number // COLUMNS + 1, "col": number % COLUMNS + 1}
        made.add_scatter(
            x=value,
            y=settings,
            mode="markers",
            showlegend=False,
            marker={"color": [style.CONTROL if n == base else style.COLOURS[0] for n in range(len(settings))], "size": 9},
            error_x=style.error(value, low, high, thickness=1.2),
            **place,
        )
        made.add_vline(x=float(value[base]), line={"color": style.CONTROL, "dash": "dash"}, **place)
    made.update_yaxes(autorange="reversed")
    made.update_annotations(font_size=12)
    made.update_layout(
        title={"text": f"{title}; dashed: {style.short(str(found.attrs['baseline']), 40)}", "font": {"size": 15}},
        margin={"l": 220, "r": 20, "t": 110, "b": 60},
        width=1200,
        height=160 + rows * (90 + 26 * len(settings)),
    )
    sure = found.attrs["interval" if axis == "measure" else "set_interval"]
    return style.caption(made, {**found.attrs, "interval": sure})


def collapse(found: xr.Dataset) -> go.Figure:
    """One panel per measure: the change of pictures when k channels of every block are zeroed. From
    `dose_response.collapse`.
    """
    measures = [str(name) for name in found["measure"].to_numpy()]
    said = {"structure": "structure; 1: another prompt", "detail": "detail lost", "sharpness": "sharpness"}
    titles = [said.get(name, name.replace("_", " ")) for name in measures]
    made = style.subplots(1, len(measures), subplot_titles=titles, horizontal_spacing=0.06)
    ks = found["k"].to_numpy()
    for place, measure in enumerate(measures):
        for number, kind in enumerate(found["kind"].to_numpy()):
            one, colour = found.sel(measure=measure, kind=kind), style.COLOURS[number]
            where = {"row": 1, "col": place + 1}
            made.add_scatter(
                x=ks,
                y=one["value"].to_numpy(),
                name=f"{kind} channels",
                legendgroup=str(kind),
                showlegend=place == 0,
                mode="lines+markers",
                line={"color": colour},
                error_y=style.error(one["value"], one["low"], one["high"], thickness=1),
                **where,
            )
    made.update_xaxes(type="log", title_text="k channels of every block", **style.log_ticks(ks))
    made.update_annotations(font_size=12)
    title = {"text": "k channels of every block zeroed at all steps: effect on pictures", "font": {"size": 15}}
    made.update_layout(title=title, margin={"t": 120, "b": 60}, width=1200, height=420)
    return style.caption(made, found.attrs)
