"""Stores opened once for all sessions, and again when they change."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from interp.base.errors import InterpWarning
from interp.store.experiment import Experiment, open_experiment
from interp.store.traced_run import Run, open_run

Stamp = tuple[int, ...]
QUICK = 128e6  # bytes read without asking
SPEED = 150e6  # bytes a second of reading and analysing, for the estimate
WATCHED = ("done/c", "analysis", "summary")  # folders that change when rows are done or results are written


def stamp(path: Path) -> Stamp:
    """A value that changes when a row is finished or a result is written."""
    folders = [path / name for name in WATCHED]
    newest = [max(map(_changed, folder.glob("*")), default=0) for folder in folders]
    return (*map(_changed, (path / "zarr.json", *folders)), *newest)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@st.cache_resource(max_entries=64, show_spinner=False)
def _opened(path: str, changed: Stamp, _open: Callable[[str], Any]) -> Any:
    return _open(path)


def run(path: Path) -> Run:
    """A traced run, opened."""
    found: Run = _opened(str(path), stamp(path), open_run)
    return found


def experiment(path: Path) -> Experiment:
    """An experiment, opened."""
    found: Experiment = _opened(str(path), stamp(path), open_experiment)
    return found


@st.cache_data(max_entries=256, max_size="256MB", show_spinner="Reading ...")
def _computed(path: str, changed: Stamp, name: str, arguments: tuple[Any, ...], _work: Callable[[], Any]) -> Any:
    return _work()


def computed(path: Path, name: str, arguments: tuple[Any, ...], work: Callable[[], Any]) -> Any:
    """The value of `work()`, cached until the store changes. It may depend only on the store and `arguments`.

    Analyses' warnings about unfinished runs are silenced: a page always shows its own.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InterpWarning)
        return _computed(str(path), stamp(path), name, arguments, work)


@st.cache_resource(max_entries=64, show_spinner=False)
def _summaries(path: str) -> dict[str, Any]:
    """The last summary computed here, even if more rows were traced since."""
    return {}


def need_summary(run: Run) -> None:
    """Stop the page with a button where its summary must be computed from a large store. An outdated summary
    is used, with a caption.
    """
    computed_here = _summaries(str(run.path))
    stored = computed_here.get("summary", run.stored_summary)
    now = stored is not None and stored.attrs.get("rows") == run.rows_done
    if now or run.summary_bytes <= QUICK:
        if now:
            run.__dict__["summary"] = stored
        return
    cost = f"{run.summary_bytes / 1e9:.1f} GB, about {max(run.summary_bytes / SPEED, 1):.0f} s"
    if st.button(f"Summarise {run.rows_done} rows (reads {cost})", key=f"summarise:{run.path}"):
        with st.spinner("Reading ..."):
            computed_here["summary"] = run.__dict__["summary"] = run.summarise()
        return
    if stored is None:
        st.caption("This trace is unfinished and has no summary yet; its pages need one of the rows done so far.")
        st.stop()
    run.__dict__["summary"] = stored
    st.caption(f"The summary shown covers {stored.attrs.get('rows')} rows.")
