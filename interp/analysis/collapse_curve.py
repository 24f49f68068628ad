"""How pictures fall apart as the largest channels of every block go: Few Channels' disruption probe (arXiv 2605.13974)."""

from __future__ import annotations

import numpy as np
import xarray as xr

from interp.analysis import pairs
from interp.analysis.result import result, whole_rows
from interp.store.experiment import Experiment
from interp.store.schema import Array

KINDS = ("top", "lowest", "random")


def curve(experiment: Experiment, reference: Array | None = None) -> xr.Dataset:
    """Measures of every kind and number of channels, against the original picture of the same row.

    value, low, high                  (measure, kind, k)   mean over prompt texts; of structure, detail and sharpness in units
                                                           of `scale` (structure: 1 is another prompt's picture)
    over_lowest, _low, _high          (measure, kind, k)   less the lowest channels' of the same k, paired by text
    changed_energy                    (kind, k)            of the edited states' energy

    Of `prompt_effect` the interval is a jackknife over texts, and nothing is paired: its values are of pairs of prompts.
    """
    whole = whole_rows(experiment)
    cells = pairs.compare(experiment, reference).isel(prompt=whole)
    ks = sorted({int(k) for k in cells["k"].to_numpy()} - {0})
    place = {(str(kind), int(k)): n for n, (kind, k) in enumerate(zip(cells["kind"].values, cells["k"].values, strict=True))}
    groups = [[place[kind, k]] for kind in KINDS for k in ks]
    lowest = [[place["lowest", k]] for kind in KINDS for k in ks]
    axes, shape = ("measure", "kind", "k"), (len(KINDS), len(ks))
    energy = cells["changed_energy"].mean("prompt").to_numpy().astype(float)[np.ravel(groups)].reshape(shape)
    return result(
        "collapse",
        {
            "value": (axes, pairs.measured(experiment, cells, groups, shape, scaled=True)),
            "over_lowest": (axes, pairs.over_control(cells, groups, lowest, shape, scaled=True)),
            "changed_energy": (axes[1:], energy),
        },
        {"measure": list(pairs.MEASURES), "kind": list(KINDS), "k": ks},
        experiment,
        ranked=f"{experiment.parameters['by']}, {experiment.parameters['ranked_by']}",
        rows=f"{len(whole)} pictures of each arm",
        **cells.attrs,
        averaged_over="seeds, then prompt texts",
        interval=f"{pairs.said_of(cells)}; prompt effect: jackknife",
        control="lowest: as many of the smallest channels; random: as many of the others, drawn for every block",
    )
