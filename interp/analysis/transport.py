"""How far transport takes the target's picture towards the source's."""

from __future__ import annotations

import numpy as np
import xarray as xr

from interp.analysis import intervals, patching
from interp.errors import InputError
from interp.store.experiment import Experiment

METRICS = ("picture", "structure", "latents")


def similarity(experiment: Experiment) -> xr.Dataset:
    """How far each transport went, by metric, set of channels and strength.

    moved, moved_low, moved_high   (metric, channels, strength)   from the target, 0, to the source, 1
    to_source, to_target           (metric, channels, strength)   distance over the distance between the two
    over_control, _low, _high      (metric, strength)             moved by massive channels, less moved by the control
    """
    rows = np.flatnonzero(experiment.done.all(axis=1))
    if not rows.size:
        raise InputError(f"{experiment.path}: no pair is drawn under every arm yet; let the experiment go on first")
    axes = experiment.axes
    sets, strengths = axes["channels"].to_numpy().astype(str), axes["strength"].to_numpy()
    names = [name for name in dict.fromkeys(sets.tolist()) if name not in ("source", "target")]
    levels = sorted({float(value) for value in strengths if value != 0})
    shape = (len(rows), len(METRICS), len(names), len(levels))
    moved, to_source, to_target = (np.full(shape, np.nan) for _ in range(3))
    for place, row in enumerate(rows):
        for number, metric in enumerate(METRICS):
            ends = [
                patching.read(experiment, int(row), int(np.flatnonzero(sets == name)[0]), metric)
                for name in ("target", "source")
            ]
            length = np.linalg.norm(ends[1] - ends[0])
            for arm in np.flatnonzero(strengths != 0):
                cell = (place, number, names.index(sets[arm]), levels.index(float(strengths[arm])))
                value = patching.read(experiment, int(row), int(arm), metric)
                moved[cell] = patching.share(value, ends[0], ends[1])
                with np.errstate(invalid="ignore", divide="ignore"):
                    to_source[cell] = np.linalg.norm(value - ends[1]) / length
                    to_target[cell] = np.linalg.norm(value - ends[0]) / length
    pairs = [patching.by_pair(experiment, rows, values, "source") for values in (moved, to_source, to_target)]
    low, high = intervals.bootstrap(pairs[0])
    over = pairs[0][:, :, names.index("massive")] - pairs[0][:, :, names.index("control")]
    over_low, over_high = intervals.bootstrap(over)
    dims, short = ("metric", "channels", "strength"), ("metric", "strength")
    return xr.Dataset(
        {
            "moved": (dims, pairs[0].mean(axis=0)),
            "moved_low": (dims, low),
            "moved_high": (dims, high),
            "to_source": (dims, pairs[1].mean(axis=0)),
            "to_target": (dims, pairs[2].mean(axis=0)),
            "over_control": (short, over.mean(axis=0)),
            "over_control_low": (short, over_low),
            "over_control_high": (short, over_high),
        },
        {
            "metric": np.array(METRICS, dtype=object),
            "channels": np.array(names, dtype=object),
            "strength": levels,
        },
        {
            "analysis": "transport",
            "model": str(experiment.plan.get("model")),
            "weights": str(experiment.plan.get("weights", "")),
            **{name: experiment.parameters[name] for name in ("massive", "control", "from", "mask")},
            "averaged_over": "seeds, then pairs of prompts",
            "interval": intervals.said(len(pairs[0])).replace("prompt texts", "pairs of prompts"),
        },
    )
