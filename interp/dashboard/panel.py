"""A panel: a figure, its data and the Python code that reproduces it."""

from __future__ import annotations

import functools
import html
import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import plotly.graph_objects as go
import plotly.io
import streamlit as st
import xarray as xr

from interp.dashboard.pickers import plain
from interp.figures import marks, style
from interp.store import tables

plotly.io.templates.default = None  # every figure sets its own; plotly would first copy a large default into each

Data = xr.Dataset | xr.DataArray
LABELS = {"parquet": "Parquet", "nc": "NetCDF"}
MIME = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet", "nc": "application/x-netcdf"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")


def panel(
    key: str,
    make: Callable[[], go.Figure],
    data: Data,
    code: Sequence[str],
    *,
    clicked: Callable[..., None] | None = None,
    height: int | None = None,
) -> None:
    """Draw the figure of `make`, with downloads and code. A click on a cell calls `clicked(x, y, the map's name)`."""
    shown, said = _themed(make())
    if height is not None:
        shown.update_layout(height=height)
    if clicked is None:
        st.plotly_chart(shown, key=key, theme="streamlit", config={"displaylogo": False})
    else:

        def on_select() -> None:
            points = st.session_state[key]["selection"]["points"]
            if points:
                clicked(*points[0]["customdata"])

        marks.clickable(shown)
        config = {"displayModeBar": False}
        st.plotly_chart(shown, key=key, theme="streamlit", on_select=on_select, selection_mode="points", config=config)
    if said:
        st.caption(plain(said))
    more(key, make, data, code)


def more(key: str, make: Callable[[], go.Figure], data: Data | Callable[[], Data], code: Sequence[str]) -> None:
    """Offer a panel's data and figure as files, and the Python code that reproduces it. Slow data may
    be passed as a function.
    """
    with st.popover("Data, figure, Python", icon=":material/download:", key=f"{key}:more"):
        _files(key, data, make)
        st.caption("The same in Python:")
        st.code("\n".join(code), language="python")


def _themed(shown: go.Figure) -> tuple[go.Figure, str]:
    """The figure in the page's colours, light or dark, sized to a column, and its caption for the page to wrap."""
    said = html.unescape(str(shown.layout.title.subtitle.text or "").replace("<br>", " "))
    top = max((shown.layout.margin.t or style.TOP) - (style.LINE if said else 0), 60)
    shown.update_layout(template="streamlit", width=None, margin_t=top, title_subtitle_text=None)
    legend = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "xanchor": "left"}
    shown.update_layout(legend=legend)
    return shown, said


def _files(key: str, data: Data | Callable[[], Data], make: Callable[[], go.Figure]) -> None:
    """Buttons that create their file only when pressed."""
    written = functools.partial(_encoded, data), tables.missing, tables.FORMATS
    drawn = functools.partial(_picture, make), _no_picture, style.FORMATS
    for encode, absent, kinds in (written, drawn):
        for column, kind in zip(st.columns(3), kinds, strict=True):
            column.download_button(
                LABELS.get(kind, kind.upper()),
                data=functools.partial(encode, kind),
                file_name=f"{key.replace(':', '-')}.{kind}",
                mime=MIME.get(kind),
                key=f"{key}:{kind}",
                on_click="ignore",
                disabled=bool(absent(kind)),
                help=absent(kind) or None,
                width="stretch",
            )


def _encoded(data: Data | Callable[[], Data], kind: str) -> bytes:
    return tables.encode(data if isinstance(data, xr.Dataset | xr.DataArray) else data(), kind)


def _picture(make: Callable[[], go.Figure], kind: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return style.write(make(), Path(folder) / f"figure.{kind}").read_bytes()


def _no_picture(kind: str) -> str:
    """Why a figure's file of this kind cannot be created here; empty if it can."""
    if kind == "html":
        return ""
    if importlib.util.find_spec("kaleido") is None:
        return "needs kaleido: pip install 'interp[export]'"
    return "" if any(shutil.which(name) for name in BROWSERS) else "needs a Chrome or Chromium on this machine"
