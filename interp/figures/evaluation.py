"""Figures of evaluations: every setting's scores with intervals, and the baseline's; win rates of a blind study."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from interp.figures import marks, style

COLUMNS = 3


def scores(found: xr.Dataset) -> go.Figure:
    """One panel per measure of pictures: each setting's value and interval, the baseline as a line. From `evaluate`."""
    return _panels(found, "", "scores of pictures")


def set_scores(found: xr.Dataset) -> go.Figure:
    """The same for measures of whole sets, which are not paired with the baseline."""
    return _panels(found, "set_", "scores of sets")


def _panels(found: xr.Dataset, prefix: str, title: str) -> go.Figure:
    settings = [str(setting) for setting in found["setting"].to_numpy()]
    baseline = str(found.attrs["baseline"])
    parts = [found.isel({f"{prefix}measure": number}) for number in range(found.sizes[f"{prefix}measure"])]
    made, places = style.panels(
        f"{title}; dashed: {style.short(baseline, 40)}",
        [f"{one[f'{prefix}measure'].item()} ({one[f'{prefix}better'].item()} is better)" for one in parts],
        columns=min(len(parts), COLUMNS),
        margin={"l": 220, "r": 20, "t": 110, "b": 60},
        width=1200,
        height=160 + -(-len(parts) // COLUMNS) * (90 + 26 * len(settings)),
    )
    marker = {"color": [style.CONTROL if setting == baseline else style.COLOURS[0] for setting in settings], "size": 9}
    names = [style.short(setting, 40) for setting in settings]
    for one, place in zip(parts, places, strict=True):
        marks.intervals(made, names, one, f"{prefix}value", sideways=True, marker=marker, **place)
        made.add_vline(x=float(one[f"{prefix}value"].sel(setting=baseline)), line=marks.DASHED, **place)
    made.update_yaxes(autorange="reversed").update_annotations(font_size=12)
    return style.caption(made, {**found.attrs, "interval": found.attrs[f"{prefix}interval"]})


def win_rates(found: xr.Dataset) -> go.Figure:
    """Share of answers for the first method, by question, with 0.5 marked. From `study.win_rates`; DG Fig. 17."""
    first, second = (style.plain(str(name)) for name in found.attrs["methods"])
    x = f"share of answers for {first}, a tie counted half"
    made = style.figure(f"{first} against {second}", x, "", xaxis_range=[0, 1], height=320)
    questions = [str(question) for question in found["question"].to_numpy()]
    marks.intervals(made, questions, found, "win", sideways=True, marker={"size": 10, "color": style.COLOURS[0]})
    made.add_vline(x=0.5, line=marks.DASHED, annotation_text="no preference")
    made.update_yaxes(autorange="reversed")
    return style.caption(made, found.attrs)


def collapse(found: xr.Dataset) -> go.Figure:
    """One panel per measure: the change of pictures when k channels of every block are zeroed. From `disruption.collapse`."""
    found = marks.measured(found)
    hover = {"structure": "structure; 1: another prompt", "detail": "detail lost", "sharpness": "sharpness"}
    titles = [hover.get(name, name.replace("_", " ")) for name in found["measure"].to_numpy().tolist()]
    title = "k channels of every block zeroed at all steps: effect on pictures"
    made, places = style.panels(title, titles, shared=False, width=1200, height=420)
    for number, place in enumerate(places):
        for colour, kind, one in marks.each(found.isel(measure=number), "kind"):
            marks.intervals(made, found["k"], one, "value", f"{kind} channels", line={"color": colour}, **place)
    made.update_xaxes(type="log", title_text="k channels of every block", **style.log_ticks(found["k"]))
    made.update_annotations(font_size=12)
    return style.caption(made, found.attrs)
