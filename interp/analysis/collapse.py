"""How pictures fall apart as the largest channels of every block go: Few Channels' disruption probe (arXiv 2605.13974)."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import intervals, pairs
from interp.errors import InputError
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
    whole = np.flatnonzero(experiment.done.all(axis=1))
    if not whole.size:
        raise InputError(f"{experiment.path}: no row is drawn under every arm yet; let the experiment go on first")
    cells = pairs.compare(experiment, reference=reference).isel(prompt=whole)
    ks = sorted({int(k) for k in cells["k"].to_numpy()} - {0})
    place = {(str(kind), int(k)): n for n, (kind, k) in enumerate(zip(cells["kind"].values, cells["k"].values, strict=True))}
    shape = (len(pairs.MEASURES), len(KINDS), len(ks))
    names = [f"{name}{end}" for name in ("value", "over_lowest") for end in ("", "_low", "_high")]
    names = ["value", "low", "high", *names[3:]]
    data = {name: np.full(shape, np.nan) for name in names}
    for m, measure in enumerate(pairs.MEASURES):
        for n, kind in enumerate(KINDS):
            for j, k in enumerate(ks):
                found = _cell(experiment, cells, measure, place[kind, k], place["lowest", k])
                for name, value in found.items():
                    data[name][m, n, j] = value
    energy = [[float(cells["changed_energy"].isel(arm=place[kind, k]).mean()) for k in ks] for kind in KINDS]
    axes = ("measure", "kind", "k")
    return xr.Dataset(
        {**{name: (axes, values) for name, values in data.items()}, "changed_energy": (("kind", "k"), energy)},
        {"measure": np.array(list(pairs.MEASURES), object), "kind": np.array(list(KINDS), object), "k": ks},
        {
            "analysis": "collapse",
            "model": str(experiment.plan.get("model")),
            "weights": str(experiment.plan.get("weights", "")),
            "ranked": f"{experiment.parameters['by']}, {experiment.parameters['ranked_by']}",
            "rows": f"{len(whole)} pictures of each arm",
            **{name: value for name, value in cells.attrs.items() if name.startswith("scale_") or name == "reference"},
            "averaged_over": "seeds, then prompt texts",
            "interval": intervals.said(len(set(cells["prompt_text"].to_numpy().tolist()))) + "; prompt effect: jackknife",
            "control": "lowest: as many of the smallest channels; random: as many of the others, drawn for every block",
        },
    )


def _cell(experiment: Experiment, cells: xr.Dataset, measure: str, arm: int, lowest: int) -> dict[str, Any]:
    """One measure of one arm, with its intervals."""
    if measure == "prompt_effect":
        return dict(zip(("value", "low", "high"), pairs.effect_of_prompt(experiment, [arm]), strict=True))
    scale = float(cells.attrs[f"scale_{measure}"])
    values, under = (pairs.over_texts(cells[measure].isel(arm=one)) / scale for one in (arm, lowest))
    found: dict[str, Any] = {}
    for (name, low, high), of in ((("value", "low", "high"), values), (_OVER, values - under)):
        if not len(of):  # one prompt: nothing to measure detail by
            continue
        bounds = intervals.bootstrap(of)
        found |= {name: float(of.mean()), low: float(bounds[0]), high: float(bounds[1])}
    return found


_OVER = ("over_lowest", "over_lowest_low", "over_lowest_high")
