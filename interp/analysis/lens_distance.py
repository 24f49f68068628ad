"""Distance of the picture at each block and step to the final picture."""

from __future__ import annotations

import itertools

import xarray as xr

from interp.analysis import pairs
from interp.analysis.result import result
from interp.store.experiment import Experiment

SHOWN = ("structure", "detail", "sharpness")


def distances(experiment: Experiment) -> xr.Dataset:
    """Measures of every cell against the final picture of its row (`pairs.MEASURES`).

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
        {"value": (("measure", "kind", "step", "block"), pairs.measured(experiment, cells, groups, shape, names=SHOWN))},
        {"measure": SHOWN, "kind": kinds, "step": steps, "block": blocks},
        experiment,
        without=experiment.parameters["without"],
        **cells.attrs,
        averaged_over="seeds, then prompt texts",
        interval=pairs.said_of(cells),
        control="the last block at each step: the model's own estimate",
    )
