"""How far pictures are from others: patches from the clean one, transport from the source's, blocks from the final one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import intervals, pairs, sources
from interp.analysis.result import Estimate, result, whole_rows
from interp.base.errors import InputError
from interp.metrics import distances as pixels
from interp.store.experiment import Experiment
from interp.store.schema import Array

METRICS = ("picture", "structure", "latents")
LENS = ("structure", "detail", "sharpness")


def recovered(experiment: Experiment, metric: str = "picture") -> xr.Dataset:
    """Recovered = <patched - corrupted, clean - corrupted> / |clean - corrupted|^2: 0 the corrupted picture, 1 the clean one.

    recovered, recovered_low, recovered_high   (what, block, column)   mean over pairs; NaN where there is nothing to patch

    `metric`: "picture" compares pixels, "structure" blurred pictures, "latents" the last latents.
    """
    if metric not in METRICS:
        raise InputError(f"metric must be one of {', '.join(METRICS)}; got {metric!r}")
    rows = whole_rows(experiment, "pair", "in every cell")
    axes = experiment.axes
    whats, blocks, columns = (axes[name].to_numpy() for name in ("what", "block", "column"))
    names: dict[str, list[Any]] = {
        "what": [str(name) for name in dict.fromkeys(whats) if name not in ("clean", "corrupted")],
        "block": sorted({int(block) for block in blocks if block >= 0}),
        "column": [str(column) for column in dict.fromkeys(columns) if column != "-"],
    }
    values = np.full((len(rows), *(len(axis) for axis in names.values())), np.nan)
    places = list(zip(whats.astype(str), blocks.astype(int), columns.astype(str), strict=True))
    for place, arm, value, start, end in between(experiment, rows, "what", ("corrupted", "clean"), metric):
        cell = (axis.index(v) for axis, v in zip(names.values(), places[arm], strict=True))
        values[(place, *cell)] = share(value, start, end)
    each = by_pair(experiment, rows, values)
    return result(
        "patching",
        {"recovered": (tuple(names), Estimate.mean(each))},
        names,
        experiment,
        metric=metric,
        **{name: experiment.parameters[name] for name in ("channels", "stream", "columns")},
        averaged_over="seeds, then pairs of prompts",
        interval=intervals.said(len(each)).replace("prompt texts", "pairs of prompts"),
        control="as many ordinary channels",
    )


def moved(experiment: Experiment) -> xr.Dataset:
    """How far each transport moved the picture, by metric, set of channels and strength.

    moved, moved_low, moved_high   (metric, channels, strength)   from the target, 0, to the source, 1
    to_source, to_target           (metric, channels, strength)   distance over the distance between the two
    over_control, _low, _high      (metric, strength)             moved by massive channels, less moved by the control
    """
    rows = whole_rows(experiment, "pair")
    axes = experiment.axes
    sets, strengths = axes["channels"].to_numpy().astype(str), axes["strength"].to_numpy()
    names = [name for name in dict.fromkeys(sets.tolist()) if name not in ("source", "target")]
    levels = sorted({float(value) for value in strengths if value != 0})
    shape = (len(rows), len(METRICS), len(names), len(levels))
    along, to_source, to_target = (np.full(shape, np.nan) for _ in range(3))
    for number, metric in enumerate(METRICS):
        for place, arm, value, start, end in between(experiment, rows, "channels", ("target", "source"), metric):
            cell = (place, number, names.index(sets[arm]), levels.index(float(strengths[arm])))
            along[cell] = share(value, start, end)
            with np.errstate(invalid="ignore", divide="ignore"):
                to_source[cell] = np.linalg.norm(value - end) / np.linalg.norm(end - start)
                to_target[cell] = np.linalg.norm(value - start) / np.linalg.norm(end - start)
    way, beyond, short = (by_pair(experiment, rows, values, "source") for values in (along, to_source, to_target))
    over = way[:, :, names.index("massive")] - way[:, :, names.index("control")]
    dims = ("metric", "channels", "strength")
    return result(
        "transport",
        {
            "moved": (dims, Estimate.mean(way)),
            "to_source": (dims, beyond.mean(axis=0)),
            "to_target": (dims, short.mean(axis=0)),
            "over_control": (("metric", "strength"), Estimate.mean(over)),
        },
        {"metric": METRICS, "channels": names, "strength": levels},
        experiment,
        **{name: experiment.parameters[name] for name in ("massive", "from", "mask")},
        averaged_over="seeds, then pairs of prompts",
        interval=intervals.said(len(way)).replace("prompt texts", "pairs of prompts"),
        control=experiment.parameters["control"],
    )


def distances(experiment: Experiment) -> xr.Dataset:
    """Measures of the picture at each block and step against the final picture of its row (`pairs.MEASURES`).

    value, low, high   (measure, kind, step, block)   mean over prompt texts
    """
    cells = pairs.compare(experiment)
    kinds = [str(kind) for kind in dict.fromkeys(cells["kind"].to_numpy()) if kind != "final"]
    steps = sorted({int(step) for step in cells["step"].to_numpy() if step >= 0})
    blocks = sorted({int(block) for block in cells["block"].to_numpy() if block >= 0})
    labels = zip(*(cells[name].to_numpy().tolist() for name in ("kind", "step", "block")), strict=True)
    arms = {label: arm for arm, label in enumerate(labels)}
    groups = [[arms[label]] for label in itertools.product(kinds, steps, blocks)]
    shape = (len(kinds), len(steps), len(blocks))
    return result(
        "lens",
        {"value": (("measure", "kind", "step", "block"), pairs.measured(experiment, cells, groups, shape, names=LENS))},
        {"measure": LENS, "kind": kinds, "step": steps, "block": blocks},
        experiment,
        without=experiment.parameters["without"],
        **cells.attrs,
        averaged_over="seeds, then prompt texts",
        interval=pairs.said_of(cells),
        control="the last block at each step: the model's own estimate",
    )


def between(
    experiment: Experiment, rows: Array, label: str, ends: tuple[str, str], metric: str
) -> Iterator[tuple[int, int, Array, Array, Array]]:
    """Every cell of these rows with the two ends of its row, which are arms with these labels: (place of the row, arm, value,
    first end, last end).
    """
    names = experiment.axes[label].to_numpy().astype(str).tolist()
    for place, row in enumerate(rows.tolist()):
        start, end = (read(experiment, row, names.index(name), metric) for name in ends)
        for arm in (arm for arm, name in enumerate(names) if name not in ends):
            yield place, arm, read(experiment, row, arm, metric), start, end


def by_pair(experiment: Experiment, rows: Array, values: Array, other: str = "clean") -> Array:
    """The mean over seeds of each pair of prompts: (pair, ...)."""
    texts = experiment.axes["prompt_text"].to_numpy().astype(str)
    return sources.means_alike(values, [(experiment.parameters[other][row], texts[row]) for row in rows])


def share(value: Array, start: Array, end: Array) -> float:
    """The projection of `value` on the line from `start`, 0, to `end`, 1; NaN where they are equal."""
    way = (end - start).ravel()
    length = float(way @ way)
    return float((value - start).ravel() @ way) / length if length > 0 else float("nan")


def read(experiment: Experiment, row: int, arm: int, metric: str) -> Any:
    """A cell's pixels, blurred pixels or latents."""
    if metric == "latents":
        return experiment.latents(row, arm).astype(np.float64)
    picture = experiment.picture(row, arm)
    return pixels.low_pass(picture) if metric == "structure" else pixels.as_floats(picture)
