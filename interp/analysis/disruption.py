"""Effects of ablations on pictures: structure, detail, the prompt, wins, and tests that small effects are small.

Every arm is compared with the original picture of the same row, then with the random control of the same blocks. Values of a
row's repeated controls are averaged first, then seeds, then prompt texts.

Dose and response: the doses at which each paper's claim holds on this model.

    DG, section 4.2   detail is lost, structure stays: detail or sharpness worse, structure change minimal
    FC                the picture collapses: structure changes by at least half of its difference between two prompts

Both are measured for the massive channels and for ordinary ones at the same dose.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from interp.analysis import intervals, pairs, prompt_effect, sampled
from interp.analysis.result import Estimate, result, whole_rows
from interp.analysis.sampled import Sampled
from interp.store.experiment import Experiment
from interp.store.schema import Array

WINS = {"detail": -1.0}  # the sign of a better picture; a sharper one may have grain instead of detail
MARGIN = 0.1
CONTROL = "random"
COLLAPSE = 0.5  # of the distance between two prompts' pictures
WORSE = {"detail": 1.0, "sharpness": -1.0}  # the sign of a loss
KINDS = ("top", "lowest", "random")
LABELS = ("kind", "count", "blocks", "block_count", "window")


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
    named = {both[arms[0]]: arms.tolist() for arms in sampled.alike(both) if both[arms[0]][0] != "original"}
    groups, members = list(named), list(named.values())
    controls = [named.get((CONTROL, blocks), []) if kind != CONTROL else [] for kind, blocks in groups]
    limits = {name: margin * cells.attrs[f"scale_{name}"] for name in pairs.MEASURES}
    said = [[_judged(experiment, cells, name, arms, limits[name]) for arms in members] for name in pairs.MEASURES]
    wins = [Estimate.share(*_won(cells, name, arms)) for name in WINS for arms in members]
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
        interval=f"{pairs.said_of(cells)}; prompt effect: jackknife; wins: Wilson",
        control=f"{CONTROL}: as many ordinary channels zeroed",
        note=f"minimal, changed: the 90% interval lies within, the 95% interval outside +-{margin:g} of the scale",
    )


def response(experiment: Experiment, reference: Array | None = None, *, margin: float = MARGIN) -> xr.Dataset:
    """Measures of every dose over the prompts that it was drawn for.

    value, low, high            (measure, dose)   against the original picture, in units of `scale` (1: another prompt's
                                                  structure; one standard deviation of the originals' detail, sharpness)
    over_control, _low, _high   (measure, dose)   less the random channels of the same dose and rows
    energy                      (dose)            changed, of the edited states' energy
    amount                      (dose)            changed, of the energy of all states: all blocks x steps
    outcome                     (dose)            detail lost alone (DG), collapse (FC), detail altered alone (such as grain
                                                  added), nothing, more than detail, or cannot tell
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
        {name: pairs.known(pairs.together(cells, name, [arm], scaled=True)) for name in ("structure", *WORSE)} for arm in arms
    ]
    drawn = [one["structure"][1].prompts for one in by_text]
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
        interval=f"{pairs.said_of(cells)}, or over fewer where fewer are drawn; prompt effect: jackknife",
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


def outcome(values: dict[str, tuple[Array, Sampled]], margin: float) -> str:
    """The outcome of a dose, from values of rows in units of their scales."""
    if not all(len(here) for here, _ in values.values()):
        return "cannot tell"
    structure = verdict(*values["structure"], margin)
    changed = [name for name in WORSE if verdict(*values[name], margin) == "changed"]
    worse = [name for name in changed if WORSE[name] * float(intervals.mean_of_texts(*values[name])) > 0]
    sharper = float(intervals.interval(*values["sharpness"])[0]) > 0  # farther from real pictures by grain, not by a loss
    lost, altered = bool(worse) and not sharper, bool(changed)
    if float(intervals.interval(*values["structure"])[0]) > COLLAPSE:
        return "collapse (FC)"
    if structure == "minimal" and altered:
        return "detail lost alone (DG)" if lost else "detail altered alone"
    if structure == "minimal" and all(verdict(*values[name], margin) == "minimal" for name in WORSE):
        return "nothing"
    return "more than detail" if structure == "changed" else "cannot tell"


def verdict(values: Array, units: Sampled, limit: float) -> str:
    """Two one-sided tests (Schuirmann 1987) of the mean over texts of values of rows: see `judge`."""
    if not len(values) or not np.isfinite(values).all():
        return "cannot tell"
    inner, outer = (intervals.interval(values, units, level=level) for level in (0.90, 0.95))
    return judge((float(inner[0]), float(inner[1])), (float(outer[0]), float(outer[1])), limit)


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
        return verdict(*pairs.known(pairs.together(cells, name, arms)), limit)
    inner, outer = (prompt_effect.of_arms(experiment, arms, level=level)[1:] for level in (0.90, 0.95))
    return judge(inner, outer, limit)


def _won(cells: xr.Dataset, name: str, arms: list[int]) -> tuple[Array, Sampled]:
    """Per row, how often an arm's picture is better than the original; half a win at a tie."""
    better = np.sign(WINS[name] * cells[name].isel(arm=arms)) / 2 + 0.5
    return pairs.known(xr.DataArray(better).mean("arm"))
