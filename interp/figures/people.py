"""Figures of raters' answers: win rates of a blind study."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from interp.figures import style


def win_rates(found: xr.Dataset) -> go.Figure:
    """Share of answers for the first method, by question, with 0.5 marked. From `study.win_rates`; DG Fig. 17."""
    first, second = (style.plain(str(name)) for name in found.attrs["methods"])
    made = style.figure(
        f"{first} against {second}", f"share of answers for {first}, a tie counted half", "", xaxis_range=[0, 1]
    )
    value = found["win"].to_numpy()
    low, high = found["win_low"].fillna(found["win"]).to_numpy(), found["win_high"].fillna(found["win"]).to_numpy()
    made.add_scatter(
        x=value,
        y=[str(question) for question in found["question"].to_numpy()],
        mode="markers",
        marker={"size": 10, "color": style.COLOURS[0]},
        error_x=style.error(value, low, high),
        showlegend=False,
    )
    made.add_vline(x=0.5, line={"color": style.CONTROL, "dash": "dash"}, annotation_text="no preference")
    made.update_yaxes(autorange="reversed")
    made.update_layout(height=320)
    return style.caption(made, found.attrs)
