"""Figures of raters' answers: win rates of a blind study."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from interp.figures import marks, style


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
