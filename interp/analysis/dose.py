"""Dose and response: under which dose does which paper's claim hold, on this model?

    DG, section 4.2   detail goes, structure stays: detail or sharpness worse, structure proved minimal
    FC                the picture collapses: structure moved by at least half of what another prompt would move it

each asked of the massive channels at a dose, and of the ordinary ones at the same dose.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from interp.analysis import intervals, pairs
from interp.analysis.disruption import MARGIN, verdict
from interp.store.experiment import Experiment
from interp.store.schema import Array

COLLAPSE = 0.5  # of the distance between two prompts' pictures
WORSE = {"detail": 1.0, "sharpness": -1.0}  # the sign of a loss
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
    cells = pairs.compare(experiment, reference=reference)
    kinds = cells["kind"].to_numpy().astype(str)
    arms = [number for number, kind in enumerate(kinds) if kind != "original"]
    doses = [tuple(str(cells[label].to_numpy()[arm]) for label in ("count", "blocks", "window")) for arm in range(len(kinds))]
    measures = list(pairs.MEASURES)
    bounds = ("", "_low", "_high")
    names = ("value", "low", "high", *(f"over_control{bound}" for bound in bounds))
    found = {name: np.full((len(measures), len(arms)), np.nan) for name in names}
    outcomes, drawn = [], []
    for place, arm in enumerate(arms):
        control = next(n for n in arms if kinds[n] == "random" and doses[n] == doses[arm])
        here = {name: cells[name].isel(arm=arm) / cells.attrs[f"scale_{name}"] for name in measures}
        for number, name in enumerate(measures):
            over = here[name] - cells[name].isel(arm=control) / cells.attrs[f"scale_{name}"]
            for columns, values in ((names[:3], pairs.over_texts(here[name])), (names[3:], pairs.over_texts(over))):
                if len(values) and not (columns[0] == "over_control" and arm == control):
                    low, high = intervals.bootstrap(values)
                    for column, value in zip(columns, (values.mean(), low, high), strict=True):
                        found[column][number, place] = value
            if name == "prompt_effect":  # its values are of pairs of prompts
                effect = pairs.effect_of_prompt(experiment, [arm])
                for column, value in zip(names[:3], effect, strict=True):
                    found[column][number, place] = value
                for column in names[4:]:
                    found[column][number, place] = np.nan
        by_text = {name: pairs.over_texts(here[name]) for name in ("structure", *WORSE)}
        outcomes.append(outcome(by_text, margin))
        drawn.append(len(by_text["structure"]))
    return xr.Dataset(
        {
            **{name: (("measure", "dose"), values) for name, values in found.items()},
            "energy": ("dose", cells["changed_energy"].isel(arm=arms).mean("prompt").to_numpy()),
            "amount": ("dose", cells["dose"].isel(arm=arms).mean("prompt").to_numpy()),
            "outcome": ("dose", np.array(outcomes, dtype=object)),
            "prompts": ("dose", drawn),
        },
        {
            "measure": np.array(measures, dtype=object),
            "dose": np.array([str(name) for name in cells["arm"].isel(arm=arms).to_numpy()], dtype=object),
            **{label: ("dose", cells[label].isel(arm=arms).to_numpy()) for label in LABELS},
        },
        {
            "analysis": "dose",
            "model": str(experiment.plan.get("model")),
            "weights": str(experiment.plan.get("weights", "")),
            "rows": f"{int(experiment.done.sum())} pictures, {min(drawn, default=0)} to {max(drawn, default=0)} prompts a dose",
            **{name: value for name, value in cells.attrs.items() if name != "analysis"},
            "averaged_over": "seeds, then prompt texts",
            "interval": intervals.said(max(drawn, default=0)).replace("over", "over up to")
            + "; prompt effect: jackknife over texts; outcomes: t intervals",
            "control": "as many random and lowest channels at the same dose, in the same rows",
            "note": f"minimal within +-{margin:g}, collapse from {COLLAPSE:g} of the distance between two prompts' pictures on",
        },
    )


def outcome(values: dict[str, Array], margin: float) -> str:
    """What a dose did: values in units of their scales, (text,) each."""
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
