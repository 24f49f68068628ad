"""How far transport takes the target's picture towards the source's."""

from __future__ import annotations

import numpy as np
import xarray as xr

from interp.analysis import intervals, patching
from interp.analysis.result import Estimate, result, whole_rows
from interp.store.experiment import Experiment


def similarity(experiment: Experiment) -> xr.Dataset:
    """How far each transport went, by metric, set of channels and strength.

    moved, moved_low, moved_high   (metric, channels, strength)   from the target, 0, to the source, 1
    to_source, to_target           (metric, channels, strength)   distance over the distance between the two
    over_control, _low, _high      (metric, strength)             moved by massive channels, less moved by the control
    """
    rows = whole_rows(experiment, "pair")
    axes = experiment.axes
    sets, strengths = axes["channels"].to_numpy().astype(str), axes["strength"].to_numpy()
    names = [name for name in dict.fromkeys(sets.tolist()) if name not in ("source", "target")]
    levels = sorted({float(value) for value in strengths if value != 0})
    shape = (len(rows), len(patching.METRICS), len(names), len(levels))
    moved, to_source, to_target = (np.full(shape, np.nan) for _ in range(3))
    for number, metric in enumerate(patching.METRICS):
        for place, arm, value, start, end in patching.between(experiment, rows, "channels", ("target", "source"), metric):
            cell = (place, number, names.index(sets[arm]), levels.index(float(strengths[arm])))
            moved[cell] = patching.share(value, start, end)
            with np.errstate(invalid="ignore", divide="ignore"):
                to_source[cell] = np.linalg.norm(value - end) / np.linalg.norm(end - start)
                to_target[cell] = np.linalg.norm(value - start) / np.linalg.norm(end - start)
    pairs = [patching.by_pair(experiment, rows, values, "source") for values in (moved, to_source, to_target)]
    over = pairs[0][:, :, names.index("massive")] - pairs[0][:, :, names.index("control")]
    dims = ("metric", "channels", "strength")
    return result(
        "transport",
        {
            "moved": (dims, Estimate.mean(pairs[0])),
            "to_source": (dims, pairs[1].mean(axis=0)),
            "to_target": (dims, pairs[2].mean(axis=0)),
            "over_control": (("metric", "strength"), Estimate.mean(over)),
        },
        {"metric": patching.METRICS, "channels": names, "strength": levels},
        experiment,
        **{name: experiment.parameters[name] for name in ("massive", "from", "mask")},
        averaged_over="seeds, then pairs of prompts",
        interval=intervals.said(len(pairs[0])).replace("prompt texts", "pairs of prompts"),
        control=experiment.parameters["control"],
    )
