"""Stores opened once for all sessions, and anew when they change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from interp.store.experiment import Experiment, open_experiment
from interp.store.opened import Run, open_run

Stamp = tuple[int, ...]
WATCHED = ("done/c", "analysis", "summary")  # folders that change when rows are done or results are written


def stamp(path: Path) -> Stamp:
    """Changes when a row is finished or a result is written."""
    found = [_changed(path / "zarr.json")]
    for name in WATCHED:
        folder = path / name
        found.append(_changed(folder))
        try:
            found.append(max((entry.stat().st_mtime_ns for entry in os.scandir(folder)), default=0))
        except OSError:
            found.append(0)
    return tuple(found)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@st.cache_resource(max_entries=16, show_spinner=False)
def _run(path: str, changed: Stamp) -> Run:
    return open_run(path)


@st.cache_resource(max_entries=16, show_spinner=False)
def _experiment(path: str, changed: Stamp) -> Experiment:
    return open_experiment(path)


def run(path: Path) -> Run:
    """A traced run, opened."""
    return _run(str(path), stamp(path))


def experiment(path: Path) -> Experiment:
    """An experiment, opened."""
    return _experiment(str(path), stamp(path))


@st.cache_data(max_entries=256, max_size="256MB", show_spinner="Reading ...")
def _computed(path: str, changed: Stamp, name: str, arguments: tuple[Any, ...], _work: Callable[[], Any]) -> Any:
    return _work()


def computed(path: Path, name: str, arguments: tuple[Any, ...], work: Callable[[], Any]) -> Any:
    """What `work()` gives, kept until the store changes. `arguments` are all that it depends on beside the store."""
    return _computed(str(path), stamp(path), name, arguments, work)
