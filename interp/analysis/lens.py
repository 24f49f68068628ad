"""How far the picture at each block and step is from the final one."""

from __future__ import annotations

import numpy as np
import xarray as xr

from interp.analysis import intervals, pairs
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
    shape = (len(SHOWN), len(kinds), len(steps), len(blocks))
    found = {name: np.full(shape, np.nan) for name in ("value", "low", "high")}
    for arm in range(cells.sizes["arm"]):
        kind = str(cells["kind"].to_numpy()[arm])
        if kind == "final":
            continue
        place = (kinds.index(kind), steps.index(int(cells["step"][arm])), blocks.index(int(cells["block"][arm])))
        for number, name in enumerate(SHOWN):
            values = pairs.over_texts(cells[name].isel(arm=arm))
            if len(values):
                low, high = intervals.bootstrap(values)
                for variable, value in zip(found, (values.mean(), low, high), strict=True):
                    found[variable][(number, *place)] = value
    axes = ("measure", "kind", "step", "block")
    return xr.Dataset(
        {name: (axes, values) for name, values in found.items()},
        {"measure": np.array(SHOWN, dtype=object), "kind": np.array(kinds, dtype=object), "step": steps, "block": blocks},
        {
            "analysis": "lens",
            "model": str(experiment.plan.get("model")),
            "weights": str(experiment.plan.get("weights", "")),
            "without": experiment.parameters["without"],
            **{name: value for name, value in cells.attrs.items() if name != "analysis"},
            "averaged_over": "seeds, then prompt texts",
            "interval": intervals.said(len(set(cells["prompt_text"].to_numpy().tolist()))),
            "control": "the last block at each step: the model's own estimate",
        },
    )
