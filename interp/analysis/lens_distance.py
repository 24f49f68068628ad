"""How far the picture at each block and step is from the final one."""

from __future__ import annotations

import xarray as xr

from interp.analysis import pairs
from interp.analysis.result import Estimate, result
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
    shape = (len(SHOWN), len(kinds), len(steps), len(blocks))
    found = [
        pairs.measured(experiment, cells, name, [arms[kind, step, block]])
        for name in SHOWN
        for kind in kinds
        for step in steps
        for block in blocks
    ]
    return result(
        "lens",
        {"value": (("measure", "kind", "step", "block"), Estimate.stack(found, shape))},
        {"measure": SHOWN, "kind": kinds, "step": steps, "block": blocks},
        experiment,
        without=experiment.parameters["without"],
        **{name: value for name, value in cells.attrs.items() if name != "analysis"},
        averaged_over="seeds, then prompt texts",
        interval=pairs.said_of(cells),
        control="the last block at each step: the model's own estimate",
    )
