"""What disruption did to pictures: structure, detail, the prompt, who wins, and whether a small effect is proved small.

Every arm is compared with the original picture of the same row, then with the random control of the same blocks. Values of a
row's repeated controls are averaged first, then seeds, then prompt texts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import intervals, pairs
from interp.errors import InputError
from interp.store.experiment import Experiment
from interp.store.schema import Array

WINS = {"detail": -1.0, "sharpness": 1.0}  # the sign of a better picture
MARGIN = 0.1
CONTROL = "random"


def measure(experiment: Experiment, reference: Array | None = None, *, margin: float = MARGIN) -> xr.Dataset:
    """Measures of every kind of arm, with intervals over prompt texts.

    value, low, high                      (measure, arm)   against the original picture (`pairs.MEASURES`)
    over_control, _low, _high             (measure, arm)   less the random control of the same blocks
    verdict                               (measure, arm)   minimal, changed or cannot tell, by `margin`
    win, win_low, win_high                (won, arm)       how often the arm's picture beats the original's (DG Fig. 5b)
    left, right                           (arm)            root mean square pixel difference in the two halves of the picture
    changed_energy                        (arm)            of the edited states' energy

    The margin of `structure` is that share of the distance between the originals of two prompts and one seed; of `detail` and
    `sharpness`, that share of the standard deviation of the originals' own values; of `prompt_effect`, that share itself.
    """
    whole = np.flatnonzero(experiment.done.all(axis=1))
    if not whole.size:
        raise InputError(f"{experiment.path}: no row is drawn under every arm yet; let the experiment go on first")
    cells = pairs.compare(experiment, reference=reference).isel(prompt=whole)
    both = list(zip(*(cells[name].to_numpy().astype(str) for name in ("kind", "blocks")), strict=True))
    groups = [group for group in dict.fromkeys(both) if group[0] != "original"]
    members = [[number for number, arm in enumerate(both) if arm == group] for group in groups]
    limits = {name: margin * cells.attrs[f"scale_{name}"] for name in pairs.MEASURES}
    lines: list[dict[str, Any]] = []
    for name in pairs.MEASURES:
        values = [pairs.over_texts(cells[name].isel(arm=arms).mean("arm", skipna=False)) for arms in members]
        for place, group in enumerate(groups):
            if name == "prompt_effect":
                lines.append(_prompt_line(experiment, members[place], limits[name]))
                continue
            control = (CONTROL, group[1])
            beside = values[groups.index(control)] if control in groups and group[0] != CONTROL else None
            lines.append(_line(values[place], beside, limits[name]))
    axes, shape = ("measure", "arm"), (len(pairs.MEASURES), len(groups))
    data = {name: (axes, np.array([line[name] for line in lines]).reshape(shape)) for name in lines[0]}
    data["verdict"] = (axes, data["verdict"][1].astype(object))
    wins = np.array([[_interval(_won(cells, name, arms)) for arms in members] for name in WINS])
    return xr.Dataset(
        {
            **data,
            **{name: (("won", "arm"), wins[..., n]) for n, name in enumerate(("win", "win_low", "win_high"))},
            **{name: ("arm", [float(cells[name].isel(arm=arms).mean()) for arms in members]) for name in pairs.HALVES},
            "dose": ("arm", [float(cells["dose"].isel(arm=arms).mean()) for arms in members]),
            "changed_energy": ("arm", [float(cells["changed_energy"].isel(arm=arms).mean()) for arms in members]),
            "margin": ("measure", list(limits.values())),
        },
        {
            "measure": np.array(list(pairs.MEASURES), dtype=object),
            "won": np.array(list(WINS), dtype=object),
            "arm": np.array([f"{kind} {blocks}" for kind, blocks in groups], dtype=object),
            "kind": ("arm", np.array([kind for kind, _ in groups], dtype=object)),
            "blocks": ("arm", np.array([blocks for _, blocks in groups], dtype=object)),
        },
        {
            "analysis": "disruption",
            "model": str(experiment.plan.get("model")),
            "weights": str(experiment.plan.get("weights", "")),
            **{name: experiment.parameters[name] for name in ("channels", "lowest", "stream", "reach")},
            "rows": f"{len(whole)} pictures of each arm",
            **{name: value for name, value in cells.attrs.items() if name != "analysis"},
            "averaged_over": "draws of a control, seeds, then prompt texts",
            "interval": intervals.said(len(set(cells["prompt_text"].to_numpy().tolist())))
            + "; prompt effect: jackknife over texts; verdicts: t intervals",
            "control": f"{CONTROL}: as many ordinary channels zeroed",
            "note": f"minimal, changed: the 90% interval lies within, the 95% interval outside +-{margin:g} of the scale",
        },
    )


def verdict(values: Array, limit: float) -> str:
    """Two one-sided tests (Schuirmann 1987) by t intervals over texts: see `judge`."""
    if not np.isfinite(values).all():
        return "cannot tell"
    return judge(intervals.student(values, 0.90), intervals.student(values, 0.95), limit)


def judge(inner: tuple[float, float], outer: tuple[float, float], limit: float) -> str:
    """`minimal` when the 90% interval lies within +-limit, `changed` when the 95% interval lies outside it, else `cannot tell`;
    so also where there are no intervals.
    """
    if -limit < inner[0] and inner[1] < limit:
        return "minimal"
    return "changed" if outer[0] > limit or outer[1] < -limit else "cannot tell"


def _line(values: Array, control: Array | None, limit: float) -> dict[str, Any]:
    """A measure of one arm: its mean, over its control, and the verdict."""
    over = np.full(max(len(values), 1), np.nan) if control is None or len(control) != len(values) else values - control
    value, over_value = _interval(values), _interval(over)
    return {
        **dict(zip(("value", "low", "high"), value, strict=True)),
        **dict(zip(("over_control", "over_control_low", "over_control_high"), over_value, strict=True)),
        "verdict": verdict(values, limit),
    }


def _prompt_line(experiment: Experiment, arms: list[int], limit: float) -> dict[str, Any]:
    """The same of `prompt_effect`, whose values are of pairs of prompts."""
    value, low, high = pairs.effect_of_prompt(experiment, arms)
    _, *inner = pairs.effect_of_prompt(experiment, arms, level=0.90)
    nothing = dict.fromkeys(("over_control", "over_control_low", "over_control_high"), float("nan"))
    return {"value": value, "low": low, "high": high, **nothing, "verdict": judge((inner[0], inner[1]), (low, high), limit)}


def _interval(values: Array) -> tuple[float, float, float]:
    """Mean and bounds; NaN of nothing."""
    if not len(values):
        return (float("nan"),) * 3
    low, high = intervals.bootstrap(values)
    return float(values.mean()), float(low), float(high)


def _won(cells: xr.Dataset, name: str, arms: list[int]) -> Array:
    """Per text, how often an arm's picture is better than the original; half a win at a tie."""
    better = np.sign(WINS[name] * cells[name].isel(arm=arms)) / 2 + 0.5
    return pairs.over_texts(xr.DataArray(better).mean("arm"))
