"""Dose and response: the doses at which each paper's claim holds on this model.

    DG, section 4.2   detail is lost, structure stays: detail or sharpness worse, structure change minimal
    FC                the picture collapses: structure changes by at least half of its difference between two prompts

Both are measured for the massive channels and for ordinary ones at the same dose.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from interp.analysis import intervals, pairs
from interp.analysis.disruption import MARGIN, verdict
from interp.analysis.result import result, whole_rows
from interp.store.experiment import Experiment
from interp.store.schema import Array

COLLAPSE = 0.5  # of the distance between two prompts' pictures
WORSE = {"detail": 1.0, "sharpness": -1.0}  # the sign of a loss
KINDS = ("top", "lowest", "random")
LABELS = ("kind", "count", "blocks", "block_count", "window")


def response(experiment: Experiment, reference: Array | None = None, *, margin: float = MARGIN) -> xr.Dataset:
    """Measures of every dose over the prompts that it was drawn for.

    value, low, high            (measure, dose)   against the original picture, in units of `scale` (1: another prompt's
                                                  structure; one standard deviation of the originals' detail, sharpness)
    over_control, _low, _high   (measure, dose)   less the random channels of the same dose and rows
    energy                      (dose)            changed, of the edited states' energy
    amount                      (dose)            changed, of the energy of all states: all blocks x steps
    outcome                     (dose)            detail lost alone (DG), collapse (FC), detail altered alone (for instance
                                                  more of it), nothing, more than detail, or cannot tell
    prompts                     (dose)            how many
    """
    cells = pairs.compare(experiment, reference)
    kinds = cells["kind"].to_numpy().astype(str)
    arms = [number for number, kind in enumerate(kinds) if kind != "original"]
    doses = [tuple(str(cells[label].to_numpy()[arm]) for label in ("count", "blocks", "window")) for arm in range(len(kinds))]
    controls = {arm: next(n for n in arms if kinds[n] == "random" and doses[n] == doses[arm]) for arm in arms}
    groups, axes = [[arm] for arm in arms], ("measure", "dose")
    others = [[controls[arm]] if controls[arm] != arm else [] for arm in arms]
    over = pairs.over_control(cells, groups, others, scaled=True, effect=True)
    by_text = [
        {name: pairs.over_texts(pairs.together(cells, name, [arm], scaled=True)) for name in ("structure", *WORSE)}
        for arm in arms
    ]
    drawn = [len(one["structure"]) for one in by_text]
    return result(
        "dose",
        {
            "value": (axes, pairs.measured(experiment, cells, groups, scaled=True)),
            "over_control": (axes, over),
            "energy": ("dose", cells["changed_energy"].isel(arm=arms).mean("prompt").to_numpy()),
            "amount": ("dose", cells["dose"].isel(arm=arms).mean("prompt").to_numpy()),
            "outcome": ("dose", np.array([outcome(one, margin) for one in by_text], dtype=object)),
            "prompts": ("dose", drawn),
        },
        {
            "measure": list(pairs.MEASURES),
            "dose": [str(name) for name in cells["arm"].isel(arm=arms).to_numpy()],
            **{label: ("dose", cells[label].isel(arm=arms).to_numpy()) for label in LABELS},
        },
        experiment,
        rows=f"{int(experiment.done.sum())} pictures, {min(drawn, default=0)} to {max(drawn, default=0)} prompts a dose",
        **cells.attrs,
        averaged_over="seeds, then prompt texts",
        interval=intervals.said(max(drawn, default=0)).replace("over", "over up to")
        + "; prompt effect: jackknife over texts; outcomes: t intervals",
        control="as many random and lowest channels at the same dose, in the same rows",
        note=f"minimal within +-{margin:g}, collapse from {COLLAPSE:g} of the distance between two prompts' pictures on",
    )


def collapse(experiment: Experiment, reference: Array | None = None) -> xr.Dataset:
    """Effect of zeroing the largest channels of every block, Few Channels' disruption probe (arXiv 2605.13974):
    measures of every kind and number of channels, against the original picture of the same row.

    value, low, high                  (measure, kind, k)   mean over prompt texts; of structure, detail and sharpness in units
                                                           of `scale` (structure: 1 is another prompt's picture)
    over_lowest, _low, _high          (measure, kind, k)   less the lowest channels' of the same k, paired by text
    changed_energy                    (kind, k)            of the edited states' energy

    The values of `prompt_effect` are of pairs of prompts: its interval is a jackknife over texts, and it is not paired.
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


def outcome(values: dict[str, Array], margin: float) -> str:
    """The outcome of a dose, from values in units of their scales, (text,) each."""
    structure = verdict(values["structure"], margin)
    lost, altered = False, False
    for name, worse in WORSE.items():
        changed = verdict(values[name], margin) == "changed"
        lost, altered = lost or (changed and worse * values[name].mean() > 0), altered or changed
    if intervals.student(values["structure"])[0] > COLLAPSE:
        return "collapse (FC)"
    if structure == "minimal" and altered:
        return "detail lost alone (DG)" if lost else "detail altered alone"
    if structure == "minimal" and all(verdict(values[name], margin) == "minimal" for name in WORSE):
        return "nothing"
    return "more than detail" if structure == "changed" else "cannot tell"
