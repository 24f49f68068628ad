"""How every figure looks, and how one is written to a file."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from interp.errors import InputError

COLOURS = ("#3366cc", "#dc3912", "#109618", "#ff9900", "#990099", "#0099c6", "#66aa00", "#b82e2e")
CONTROL = "#888888"
SCALE = "Viridis"
CAPTION = 150  # characters in a line of a caption
TOP, LINE = 65, 15  # pixels of a title, and of each line of a caption
FORMATS = ("html", "png", "svg")


def figure(title: str, x: str, y: str, **layout: Any) -> go.Figure:
    """An empty figure with titles."""
    made = go.Figure()
    made.update_layout(
        template="plotly_white",
        title={"text": title, "font": {"size": 15}},
        xaxis_title=x,
        yaxis_title=y,
        font={"size": 12},
        margin={"l": 70, "r": 30, "t": 60, "b": 60},
        **layout,
    )
    return made


def band(made: go.Figure, x: Any, low: Any, high: Any, colour: str) -> None:
    """An interval as a shaded band."""
    x, low, high = list(x), list(low), list(high)
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


def line(made: go.Figure, x: Any, y: Any, name: str, colour: str, **more: Any) -> None:
    """A line with markers."""
    made.add_scatter(x=list(x), y=list(y), name=name, mode="lines+markers", line={"color": colour}, marker={"size": 5}, **more)


def control(made: go.Figure, x: Any, y: Any, name: str) -> None:
    """A control's line: grey and dashed."""
    made.add_scatter(x=list(x), y=list(y), name=name, mode="lines", line={"color": CONTROL, "dash": "dash"})


def caption(made: go.Figure, attributes: dict[str, Any]) -> go.Figure:
    """What was averaged over and which interval, small, under the title."""
    parts = [str(attributes[key]) for key in ("model", "criterion") if attributes.get(key)]
    parts += [f"{key.replace('_', ' ')}: {attributes[key]}" for key in ("averaged_over", "interval") if attributes.get(key)]
    lines = textwrap.wrap(" · ".join(parts), CAPTION)
    text = "<br>".join(lines)
    made.update_layout(margin_t=max(made.layout.margin.t or 0, TOP + LINE * len(lines)))  # the plot begins below the caption
    made.update_layout(title={"subtitle": {"text": text, "font": {"size": 10, "color": "#666666"}}})
    return made


def write(made: go.Figure, path: str | Path) -> Path:
    """Write a figure: .html by itself (it holds its own script), .png or .svg with the `export` extra and a Chrome."""
    path = Path(path)
    kind = path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise InputError(f"figure's file must end in one of {', '.join(FORMATS)}; got {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "html":
        made.write_html(path, include_plotlyjs=True)
        return path
    try:
        made.write_image(path, width=made.layout.width or 1000, height=made.layout.height or 560, scale=2)
    except (ValueError, RuntimeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{path.name}: pictures need kaleido and a Chrome ({reason}); pip install 'interp[export]', or use .html"
        ) from None
    return path


def short(text: str, width: int = 24) -> str:
    """A text on several lines."""
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(lines)
