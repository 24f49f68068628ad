"""Analyses that read every row: read from the store if present, computed at once if quick, else behind a button."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import streamlit as st
import xarray as xr

from interp.analysis import criteria, glance, sources
from interp.dashboard import cached_stores
from interp.dashboard.panel import opening
from interp.dashboard.pickers import plain
from interp.store.traced_run import Run


def result(
    run: Run,
    name: str,
    wanted: Mapping[str, Any],
    work: Callable[[], xr.Dataset],
    reads: float,
    call: str,
) -> tuple[xr.Dataset, list[str]] | None:
    """A result and the code that computes it. A stored one is used if its attributes equal those in `wanted`."""
    if name in run.results:
        stored = cached_stores.computed(run.path, f"stored {name}", (), lambda: run.result(name))
        if current(run, stored) and all(_fits(stored, key, value) for key, value in wanted.items()):
            code = [*opening(run.path), f"found = run.result({name!r})"]
            if "channels" in wanted:
                code[-1] += f".sel(channel={list(wanted['channels'])})"
                stored = stored.sel(channel=list(wanted["channels"]))
            return stored, code
    code = [*opening(run.path), f"found = {call}"]
    arguments = tuple(sorted((key, str(value)) for key, value in wanted.items()))
    asked = (str(run.path), name, arguments)
    if reads > cached_stores.QUICK and asked not in st.session_state.setdefault("interp:asked", set()):
        text = f"Read {reads / 1e9:.1f} GB and compute (about {max(reads / cached_stores.SPEED, 1):.0f} s)"
        if not st.button(text, key=f"ask:{name}:{arguments}"):
            st.caption(f"{plain(name)} reads every row of the store. A result stored by the command line is shown at once.")
            return None
        st.session_state["interp:asked"].add(asked)
    return cached_stores.computed(run.path, name, arguments, work), code


def current(run: Run, stored: xr.Dataset) -> bool:
    """Whether a stored result covers the rows that are done now."""
    return bool(stored.attrs.get("rows") == sources.facts_of(run)["rows"])


def _fits(stored: xr.Dataset, key: str, wanted: Any) -> bool:
    """Whether a stored result was made with this setting; channels may be in any order."""
    here = stored.attrs.get(key)
    if key == "channels":
        return here is not None and "channel" in stored.dims and set(wanted) == set(stored["channel"].to_numpy().tolist())
    return bool(np.array_equal(np.asarray(here), np.asarray(wanted)))


def massive(run: Run, criterion: str) -> tuple[xr.Dataset, list[str]]:
    """Massive channels and the code that finds them: the stored result with intervals if present, else the summary's."""
    if "massive" in run.results:
        stored = cached_stores.computed(run.path, "stored massive", (), lambda: run.result("massive"))
        asked = {"steps": "all", "criterion": str(criteria.parse(criterion))}
        if current(run, stored) and all(stored.attrs.get(key) == value for key, value in asked.items()):
            return stored, [*opening(run.path), 'found = run.result("massive")']
    found = cached_stores.computed(run.path, "massive", (criterion,), lambda: glance.massive(run, criterion))
    return found, [*opening(run.path), f"found = interp.glance.massive(run, {criterion!r})"]


def consensus(found: xr.Dataset, stream: str) -> tuple[list[int], int]:
    """The massive channels of a stream, largest first, and the channel with the largest score."""
    here = found.sel(stream=stream)
    score = here["score"].max("block").fillna(-np.inf).to_numpy()
    agreed = np.flatnonzero(here["consensus"].to_numpy())
    ordered = agreed[np.argsort(-score[agreed], kind="stable")]
    channels = here["channel"].to_numpy()
    return [int(channels[place]) for place in ordered], int(channels[int(score.argmax())])
