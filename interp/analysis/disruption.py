"""Effects of ablations on pictures: structure, detail, the prompt, wins, and tests that small effects are small.

Every arm is compared with the original picture of the same row, then with the random control of the same blocks. Values of a
row's repeated controls are averaged first, then seeds, then prompt texts.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from interp.analysis import intervals, pairs, sources
from interp.analysis.result import Estimate, result, whole_rows
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
    whole = whole_rows(experiment)
    cells = pairs.compare(experiment, reference).isel(prompt=whole)
    both = list(zip(*(cells[name].to_numpy().astype(str) for name in ("kind", "blocks")), strict=True))
    named = {both[arms[0]]: arms.tolist() for arms in sources.alike(both) if both[arms[0]][0] != "original"}
    groups, members = list(named), list(named.values())
    controls = [named.get((CONTROL, blocks), []) if kind != CONTROL else [] for kind, blocks in groups]
    limits = {name: margin * cells.attrs[f"scale_{name}"] for name in pairs.MEASURES}
    said = [[_judged(experiment, cells, name, arms, limits[name]) for arms in members] for name in pairs.MEASURES]
    wins = [Estimate.mean(_won(cells, name, arms)) for name in WINS for arms in members]
    return result(
        "disruption",
        {
            "value": (("measure", "arm"), pairs.measured(experiment, cells, members)),
            "over_control": (("measure", "arm"), pairs.over_control(cells, members, controls)),
            "verdict": (("measure", "arm"), np.array(said, dtype=object)),
            "win": (("won", "arm"), Estimate.stack(wins, (len(WINS), len(groups)))),
            **{
                name: ("arm", [float(cells[name].isel(arm=arms).mean()) for arms in members])
                for name in (*pairs.HALVES, "dose", "changed_energy")
            },
            "margin": ("measure", list(limits.values())),
        },
        {
            "measure": list(pairs.MEASURES),
            "won": list(WINS),
            "arm": [f"{kind} {blocks}" for kind, blocks in groups],
            "kind": ("arm", [kind for kind, _ in groups]),
            "blocks": ("arm", [blocks for _, blocks in groups]),
        },
        experiment,
        **{name: experiment.parameters[name] for name in ("channels", "lowest", "stream", "reach")},
        rows=f"{len(whole)} pictures of each arm",
        **cells.attrs,
        averaged_over="draws of a control, seeds, then prompt texts",
        interval=f"{pairs.said_of(cells)}; prompt effect: jackknife over texts; verdicts: t intervals",
        control=f"{CONTROL}: as many ordinary channels zeroed",
        note=f"minimal, changed: the 90% interval lies within, the 95% interval outside +-{margin:g} of the scale",
    )


def verdict(values: Array, limit: float) -> str:
    """Two one-sided tests (Schuirmann 1987) by t intervals over texts: see `judge`."""
    if not np.isfinite(values).all():
        return "cannot tell"
    return judge(intervals.student(values, 0.90), intervals.student(values, 0.95), limit)


def judge(inner: tuple[float, float], outer: tuple[float, float], limit: float) -> str:
    """`minimal` when the 90% interval lies within +-limit, `changed` when the 95% interval lies outside it, else `cannot tell`,
    also without intervals.
    """
    if -limit < inner[0] and inner[1] < limit:
        return "minimal"
    return "changed" if outer[0] > limit or outer[1] < -limit else "cannot tell"


def _judged(experiment: Experiment, cells: xr.Dataset, name: str, arms: list[int], limit: float) -> str:
    """The verdict of a measure of arms."""
    if name != "prompt_effect":
        return verdict(pairs.over_texts(pairs.together(cells, name, arms)), limit)
    inner, outer = (pairs.effect_of_prompt(experiment, arms, level=level)[1:] for level in (0.90, 0.95))
    return judge(inner, outer, limit)


def _won(cells: xr.Dataset, name: str, arms: list[int]) -> Array:
    """Per text, how often an arm's picture is better than the original; half a win at a tie."""
    better = np.sign(WINS[name] * cells[name].isel(arm=arms)) / 2 + 0.5
    return pairs.over_texts(xr.DataArray(better).mean("arm"))
