"""Pickers of a run, a block, a step, a channel, a prompt, and an experiment's arm, the same on every page.

An arm or a sweep's setting is picked value by value: each picker offers the values left by the ones before it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import streamlit as st
import xarray as xr

from interp.analysis import glance
from interp.analysis.sweep_effects import settings
from interp.base.errors import InputError
from interp.dashboard import cached_stores, roots
from interp.dashboard.pickers import kept, pick, plain
from interp.store.experiment import Experiment
from interp.store.traced_run import Run

TRACE_IT = "interp trace --model demo --prompts prompts.txt --record stats,gates,branches,hidden --out cache/demo.zarr"
SWEEP_IT = (
    'interp sweep --model demo --prompts prompts.txt --guidance none --guidance "cfg:{2,4}+dg:{1,2}" --out cache/sweep.zarr'
)


def roots_given() -> tuple[Path, ...]:
    """The folders that the dashboard was started with."""
    return roots.parse(sys.argv[1:])


@st.cache_data(ttl=3, show_spinner=False)
def _stores(where: tuple[str, ...]) -> list[roots.Found]:
    return roots.stores([Path(root) for root in where])


def stores() -> list[roots.Found]:
    """All stores under the roots, listed at most every three seconds."""
    return _stores(tuple(str(root) for root in roots_given()))


def stop(why: str, command: str = TRACE_IT) -> NoReturn:
    """End the page with the command that makes what it needs."""
    st.info(why)
    st.code(command, language="bash")
    st.stop()


def run(name: str = "run", label: str = "Run", other_than: Run | None = None) -> Run:
    """A traced run, picked in the sidebar; by default not `other_than`. Without any, the page stops and shows a command."""
    found = cached_stores.run(_store(name, label, ["trace"], TRACE_IT, other_than))
    if found.rows_done < found.rows_total:
        failed = f", {len(found.failed)} failed" if found.failed else ""
        st.caption(plain(f"{found.path.name} is unfinished: {found.rows_done} of {found.rows_total} rows are done{failed}."))
    cached_stores.need_summary(found)
    return found


def experiment(kinds: Sequence[str], label: str, command: str, name: str = "experiment") -> Experiment:
    """An experiment of one of these kinds, picked in the sidebar."""
    return cached_stores.experiment(_store(name, label, kinds, command))


def _store(name: str, label: str, kinds: Sequence[str], command: str, other_than: Run | None = None) -> Path:
    found = {store.name: store for store in stores()}
    asked = str(kept().get(name) or st.query_params.get(name) or "")
    if asked in found and found[asked].problem:
        st.error(f"{plain(asked)} cannot be opened: {plain(found[asked].problem)}.")
    fitting = [store.name for store in found.values() if store.kind in kinds and not store.problem]
    if not fitting:
        folders = ", ".join(plain(str(root)) for root in roots_given())
        stop(f"No store of this kind ({', '.join(kinds)}) is under {folders}. To make one:", command)
    others = [store for store in fitting if other_than is None or found[store].path != other_than.path]
    others.sort(key=lambda store: kinds.index(found[store].kind))
    first = next((store for store in others if roots.finished(found[store].path)), (others or fitting)[0])
    return found[pick(name, label, fitting, default=first, where="the folder")].path


def stream(run: Run) -> str:
    """Image or text."""
    return pick("stream", "Stream", glance.streams(run))


def block(run: Run, stream: str) -> int:
    """A block with the stream."""
    present = run.summary["stats_present"].sel(stream=stream).to_numpy().astype(bool)
    return _middle("block", "Block", run.summary["block"].to_numpy()[present].tolist())


def step(run: Run) -> int:
    """A step, shown with its timestep."""
    steps = run.summary["step"].to_numpy().tolist()
    times = dict(zip(steps, run.summary["timestep"].to_numpy().tolist(), strict=True))
    return _middle("step", "Step", steps, shown=lambda value: f"{value} (t = {times[value]:.0f})")


def _middle(name: str, label: str, values: Sequence[int], **more: Any) -> int:
    """One of several numbers, at first the middle one."""
    return pick(name, label, values, default=values[len(values) // 2], slider=True, **more)


def channel(run: Run, massive: Sequence[int], largest: int) -> int:
    """A channel, with the massive ones first; the default is the first massive one, else the largest."""
    others = [int(value) for value in run.summary["channel"].to_numpy() if value not in set(massive)]
    shown = lambda value: f"{value} (massive)" if value in set(massive) else str(value)  # noqa: E731
    return pick("channel", "Channel", [*massive, *others], default=massive[0] if massive else largest, shown=shown)


def prompt(run: Run) -> int:
    """A row: its number, text and seed."""
    rows = run.images["prompt"].to_numpy().tolist()
    if not rows:
        raise InputError(f"no row of {run.path} is done yet, so there is nothing to show; resume its trace first")
    return _row(rows, run.images)


def row(experiment: Experiment) -> int:
    """A row of an experiment."""
    return _row(range(experiment.done.shape[0]), experiment.axes)


def _row(rows: Sequence[int], data: xr.Dataset) -> int:
    words = zip(rows, data["prompt_text"].to_numpy(), data["seed"].to_numpy(), strict=True)
    texts = {row: f"{row}: {text} (seed {seed})" for row, text, seed in words}
    return pick("prompt", "Prompt", rows, shown=texts.__getitem__)


def arm_of(
    labels: Mapping[str, Sequence[Any]],
    arms: Sequence[int],
    key: str,
    titled: Callable[[str], str],
    *,
    default: int | None = None,
    **more: Any,
) -> int:
    """One of these arms. `labels` are all arms' values by name; a label of one value needs no picker.

    Pickers are named KEY_LABEL and titled by `titled`; `default` is the initial arm.
    """
    for name, values in labels.items():
        options = list(dict.fromkeys(values[arm] for arm in arms))
        if len(options) > 1:
            first = values[default] if default is not None and values[default] in options else options[0]
            slider = not isinstance(first, str)
            value = pick(f"{key}_{name}", titled(name), options, default=first, slider=slider, **more)
            arms = [arm for arm in arms if values[arm] == value]
    return arms[0]


def setting(experiment: Experiment, side: str, default: int) -> int:
    """The arm of one setting. `side` distinguishes the pickers of two settings; `default` is the initial arm."""
    lines = settings(experiment)
    values = {name: [str(line.get(name, "-")) for line in lines] for name in dict.fromkeys(n for line in lines for n in line)}
    titled = lambda name: name.replace("dg.scale", "dg.scale (w)")  # noqa: E731
    return arm_of(values, range(len(lines)), side, titled, default=default, where="these settings", sidebar=False)


def seeds(experiment: Experiment) -> list[int]:
    """Rows of one seed, picked in the sidebar."""
    values = experiment.axes["seed"].to_numpy().tolist()
    seed = pick("seed", "Seed", sorted(set(values)))
    return [row for row, value in enumerate(values) if value == seed]
