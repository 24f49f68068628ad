"""A panel: a figure, its data and the Python that makes it again."""

from __future__ import annotations

import copy
import importlib.util
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import streamlit as st
import xarray as xr

from interp.figures import style
from interp.store import tables

MIME = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet", "nc": "application/x-netcdf"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")


def panel(
    key: str,
    figure: go.Figure,
    data: xr.Dataset | xr.DataArray,
    code: Sequence[str],
    *,
    cells: tuple[Sequence[Any], Sequence[Any]] | None = None,
    clicked: Callable[[Any, Any], None] | None = None,
    height: int | None = None,
) -> None:
    """Draw a figure with its downloads and its code. With `cells` (x, y), a click calls `clicked(x, y)` before the page runs again."""
    shown = _themed(figure)
    if height is not None:
        shown.update_layout(height=height)
    if cells is None or clicked is None:
        st.plotly_chart(shown, key=key, theme="streamlit", config={"displaylogo": False})
    else:
        style.clickable(shown, *cells)

        def on_select() -> None:
            points = st.session_state[key]["selection"]["points"]
            if points:
                clicked(points[0]["x"], points[0]["y"])

        st.plotly_chart(
            shown, key=key, theme="streamlit", on_select=on_select, selection_mode="points", config={"displayModeBar": False}
        )
    with st.popover("Data, figure, Python", icon=":material/download:", key=f"{key}:more"):
        _files(key, data, figure)
        st.caption("The same in Python:")
        st.code("\n".join(code), language="python")


def _themed(figure: go.Figure) -> go.Figure:
    """A copy in the page's colours, light or dark."""
    shown = copy.deepcopy(figure)
    shown.update_layout(template="streamlit", width=None)
    return shown


def _files(key: str, data: xr.Dataset | xr.DataArray, figure: go.Figure) -> None:
    """Buttons that make their file only when they are pressed."""
    columns = st.columns(3)
    for column, kind in zip(columns, tables.FORMATS, strict=True):
        absent = tables.missing(kind)
        column.download_button(
            {"csv": "CSV", "parquet": "Parquet", "nc": "NetCDF"}[kind],
            data=lambda kind=kind: tables.encode(data, kind),
            file_name=f"{key}.{kind}",
            mime=MIME[kind],
            key=f"{key}:{kind}",
            on_click="ignore",
            disabled=bool(absent),
            help=absent or None,
            width="stretch",
        )
    columns = st.columns(3)
    absent = _no_pictures()
    for column, kind in zip(columns, style.FORMATS, strict=True):
        column.download_button(
            kind.upper(),
            data=lambda kind=kind: _picture(figure, kind),
            file_name=f"{key}.{kind}",
            key=f"{key}:{kind}",
            on_click="ignore",
            disabled=kind != "html" and bool(absent),
            help=absent if kind != "html" and absent else None,
            width="stretch",
        )


def _picture(figure: go.Figure, kind: str) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return style.write(figure, Path(folder) / f"figure.{kind}").read_bytes()


def _no_pictures() -> str:
    """Why PNG and SVG cannot be made here; empty if they can."""
    if importlib.util.find_spec("kaleido") is None:
        return "needs kaleido: pip install 'interp[export]'"
    return "" if any(shutil.which(name) for name in BROWSERS) else "needs a Chrome or Chromium on this machine"


def opening(path: Path, *, experiment: bool = False) -> list[str]:
    """The first lines of a snippet."""
    name = "experiment" if experiment else "run"
    return ["import interp", "", f"{name} = interp.open_{name}({str(path)!r})"]
