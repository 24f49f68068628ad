"""How pictures fall apart as the largest channels of every block go: Few Channels' disruption probe (arXiv 2605.13974)."""

from __future__ import annotations

import xarray as xr

from interp.analysis import pairs
from interp.analysis.result import NOTHING, Estimate, result, whole_rows
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
    cells = pairs.compare(experiment, reference=reference).isel(prompt=whole)
    ks = sorted({int(k) for k in cells["k"].to_numpy()} - {0})
    place = {(str(kind), int(k)): n for n, (kind, k) in enumerate(zip(cells["kind"].values, cells["k"].values, strict=True))}
    shape = (len(pairs.MEASURES), len(KINDS), len(ks))
    asked = [(measure, kind, k) for measure in pairs.MEASURES for kind in KINDS for k in ks]
    scales = {measure: float(cells.attrs[f"scale_{measure}"]) for measure in pairs.MEASURES}
    value = [pairs.measured(experiment, cells, m, [place[kind, k]], scales[m]) for m, kind, k in asked]
    over = [_over_lowest(cells, m, place[kind, k], place["lowest", k], scales[m]) for m, kind, k in asked]
    axes = ("measure", "kind", "k")
    energy = [[float(cells["changed_energy"].isel(arm=place[kind, k]).mean()) for k in ks] for kind in KINDS]
    return result(
        "collapse",
        {
            "value": (axes, Estimate.stack(value, shape)),
            "over_lowest": (axes, Estimate.stack(over, shape)),
            "changed_energy": (axes[1:], energy),
        },
        {"measure": list(pairs.MEASURES), "kind": list(KINDS), "k": ks},
        experiment,
        ranked=f"{experiment.parameters['by']}, {experiment.parameters['ranked_by']}",
        rows=f"{len(whole)} pictures of each arm",
        **{name: value for name, value in cells.attrs.items() if name.startswith("scale_") or name == "reference"},
        averaged_over="seeds, then prompt texts",
        interval=f"{pairs.said_of(cells)}; prompt effect: jackknife",
        control="lowest: as many of the smallest channels; random: as many of the others, drawn for every block",
    )


def _over_lowest(cells: xr.Dataset, measure: str, arm: int, lowest: int, scale: float) -> Estimate:
    """A measure of an arm less that of the lowest channels, paired by text."""
    if measure == "prompt_effect":
        return NOTHING
    own, theirs = (pairs.over_texts(cells[measure].isel(arm=one)) / scale for one in (arm, lowest))
    return Estimate.mean(own - theirs)
