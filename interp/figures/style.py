"""Style of all figures, and writing figures to files."""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from interp.base.errors import InputError

# Okabe and Ito's colours (2008) without yellow and black, and two more; distinct for all types of colour vision (tests)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#7f3c8d", "#8c6d31")
CONTROL = "#888888"
SCALE = "Viridis"
CAPTION = 150  # characters in a line of a caption
TOP, LINE = 65, 15  # pixels of a title, and of each line of a caption
FORMATS = ("html", "png", "svg")

# small, since plotly copies and checks the whole template with every figure
TEMPLATE = "interp"
_AXIS = {
    "gridcolor": "#ebf0f8",
    "linecolor": "#ebf0f8",
    "zerolinecolor": "#dfe5ee",
    "automargin": True,
    "title": {"standoff": 12},
}
plotly.io.templates[TEMPLATE] = go.layout.Template(
    layout={
        "colorway": COLOURS,
        "font": {"color": "#2a3f5f"},
        "hovermode": "closest",
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "title": {"x": 0.05},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
)


def figure(title: str, x: str, y: str, **layout: Any) -> go.Figure:
    """An empty figure with titles."""
    made = go.Figure(layout={"template": TEMPLATE})
    axes = {"xaxis_title": x, "yaxis_title": y}
    return titled(made, title, font={"size": 12}, margin={"l": 70, "r": 30, "t": 60, "b": 60}, **axes, **layout)


def panels(
    title: str, titles: Sequence[str], *, columns: int | None = None, shared: bool = True, **layout: Any
) -> tuple[go.Figure, list[dict[str, Any]]]:
    """An empty figure of several plots with titles, by default in one row, and each plot's row and col.

    `shared` is whether plots in a row have one y axis.
    """
    wide = columns or len(titles)
    rows = -(-len(titles) // wide)
    gaps = {"horizontal_spacing": 0.04 if shared else 0.05, "vertical_spacing": 0.28 / rows}
    axes = {"shared_yaxes": shared, "shared_xaxes": wide == 1}
    made = grid(rows, wide, subplot_titles=titles, **axes, **gaps)
    titled(made, title, **{"margin": {"l": 60, "r": 20, "t": 110, "b": 60}, **layout})
    return made, [{"row": number // wide + 1, "col": number % wide + 1} for number in range(len(titles))]


def grid(rows: int, columns: int, **more: Any) -> go.Figure:
    """An empty figure of several plots; plotly's `make_subplots`."""
    return make_subplots(rows, columns, figure=go.Figure(layout={"template": TEMPLATE}), **more)


def titled(made: go.Figure, title: str, **layout: Any) -> go.Figure:
    """The figure with its title and further layout."""
    return made.update_layout(title={"text": title, "font": {"size": 15}}, **layout)


def caption(made: go.Figure, attributes: dict[str, Any]) -> go.Figure:
    """Add the averages and the kind of interval in small type under the title."""
    parts = [str(attributes[key]) for key in ("model", "criterion") if attributes.get(key)]
    parts += [f"{key.replace('_', ' ')}: {attributes[key]}" for key in ("averaged_over", "interval") if attributes.get(key)]
    lines = textwrap.wrap(plain(" · ".join(parts)), CAPTION)
    below = max(made.layout.margin.t or 0, TOP + LINE * len(lines))  # the plot begins below the caption
    subtitle = {"text": "<br>".join(lines), "font": {"size": 10, "color": CONTROL}}
    return made.update_layout(margin_t=below, title={"subtitle": subtitle})


def write(made: go.Figure, path: str | Path) -> Path:
    """Write a figure as self-contained .html, or as .png or .svg (needs the `export` extra and Chrome)."""
    path = Path(path)
    kind = path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise InputError(f"figure's file must end in one of {', '.join(FORMATS)}; got {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "html":
        made.write_html(path, include_plotlyjs=True)
        return path
    path.write_bytes(_drawn(made, kind, 2, f"{path.name}: pictures", "use .html"))
    return path


def svg(made: go.Figure) -> str:
    """A figure as SVG for a page, with unique ids, so that one page can hold several."""
    return _drawn(made, "svg", 1, "drawn figures", "leave --static out").decode("utf-8")


def _drawn(made: go.Figure, kind: str, scale: int, what: str, instead: str) -> bytes:
    """A figure's file; an error names what needs a browser, and what to do instead."""
    size = {"width": made.layout.width or 1000, "height": made.layout.height or 560}
    try:
        return bytes(made.to_image(format=kind, scale=scale, **size))
    except (ValueError, RuntimeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{what} need kaleido and a Chrome ({reason}); pip install 'interp[export]', or {instead}") from None


def log_ticks(values: Any) -> dict[str, Any]:
    """Ticks of a logarithmic axis at 1, 2 and 5 of every decade, labelled in full."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return {}
    decades = range(math.floor(math.log10(values.min())), math.ceil(math.log10(values.max())) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    return {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def short(text: str, width: int = 24) -> str:
    """Wrap a text and escape it for plotly."""
    lines = textwrap.wrap(text, width + 1, break_long_words=False, break_on_hyphens=False)
    return "<br>".join(plain(line) for line in lines)


def plain(text: str) -> str:
    """Escape a text for plotly, since labels are parsed as HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def some(values: Sequence[Any], most: int = 6) -> str:
    """Join the first few values for a title."""
    shown = ", ".join(str(value) for value in list(values)[:most])
    return f"{shown}, ... ({len(values)})" if len(values) > most else shown


def along(count: int) -> list[str]:
    """One colour per block in order, readable on white and on black."""
    places = [0.12 + 0.73 * number / max(count - 1, 1) for number in range(count)]
    shades = sample_colorscale(SCALE, places, colortype="tuple")
    return [f"#{round(255 * r):02x}{round(255 * g):02x}{round(255 * b):02x}" for r, g, b in shades]


def source(picture: Any, most: int = 256) -> str:
    """A picture, (y, x, rgb) uint8, as a PNG data URL with at most `most` pixels per side."""
    from PIL import Image

    image = Image.fromarray(np.asarray(picture))
    if max(image.size) > most:
        image.thumbnail((most, most))
    file = io.BytesIO()
    image.save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
