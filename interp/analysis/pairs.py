"""Every drawn picture of an experiment beside the original of its row: the measures that other analyses average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import intervals
from interp.analysis.result import Estimate, result, whole_rows
from interp.base.errors import InputError
from interp.metrics import distances as metrics
from interp.store.experiment import Experiment
from interp.store.schema import Array

MEASURES = {
    "structure": "root mean square difference of the blurred pictures, 0..1",
    "detail": "distance of the fine radial spectrum to the reference, less the original's, decades: > 0 is worse",
    "sharpness": "log2 of the Laplacian variance over the original's",
    "prompt_effect": "distance between latents of two prompts and one seed over the originals', less 1: -1 is no prompt left",
}
HALVES = ("left", "right")
ROUNDING = 1e-9  # a spread below this is none


def compare(experiment: Experiment, original: int = 0, reference: Array | None = None) -> xr.Dataset:
    """Measures of every cell against the original (the arm of that number), NaN where one of them is not drawn.

    structure, detail, sharpness, prompt_effect   (prompt, arm)
    left, right                            (prompt, arm)   root mean square pixel difference in the halves of the picture
    changed_energy, dose                   (prompt, arm)   of the edited states' energy; of all blocks' and steps' energy
    scale_...                              attributes: what each measure is large against (`scales`)

    `reference` is real pictures, (picture, y, x, rgb), whose mean spectrum detail is measured by; without it, the originals of
    other prompts (NaN where there is one prompt).
    """
    rows = np.flatnonzero(experiment.done[:, original])
    if not rows.size:
        raise InputError(f"{experiment.path}: no row is drawn yet; let the experiment go on first")
    axes, found = experiment.axes, {}
    for name in (*MEASURES, *HALVES):
        found[name] = np.full(experiment.done.shape, np.nan)
    originals = dict(zip(rows.tolist(), experiment.pictures(original)[1], strict=True))
    spectrum = references(originals, axes["prompt_text"].to_numpy().astype(str), reference)
    own = {row: _own(picture[None], spectrum[row]) for row, picture in originals.items()}
    others = _others(axes, rows)
    for arm in range(experiment.done.shape[1]):
        drawn, pictures = experiment.pictures(arm)
        effects = prompt_effect(experiment, [arm], original, others)
        for row, picture in zip(drawn.tolist(), pictures, strict=True):
            if row in originals:
                cell = _against(picture[None], originals[row][None], own[row], spectrum[row])
                cell["prompt_effect"] = effects.get(row, float("nan"))
                for name, value in cell.items():
                    found[name][row, arm] = value
    return xr.Dataset(
        {
            **{name: (("prompt", "arm"), values) for name, values in found.items()},
            "changed_energy": experiment.cells["changed_energy"],
            "dose": experiment.cells["dose"],
        },
        axes.coords,
        {
            "analysis": "pairs",
            "reference": "the originals of other prompts" if reference is None else f"{len(reference)} real pictures",
            **{f"scale_{name}": value for name, value in _scales(axes, rows, originals, own).items()},
        },
    )


def by_arm(experiment: Experiment, reference: Array | None = None) -> xr.Dataset:
    """Measures of every arm against the first one's picture of the same row (`MEASURES`), mean over prompt texts.

    value, low, high   (measure, arm)
    """
    cells = compare(experiment, reference=reference).isel(prompt=whole_rows(experiment))
    arms = range(1, cells.sizes["arm"])
    found = [measured(experiment, cells, name, [arm]) for name in MEASURES for arm in arms]
    return result(
        experiment.kind,
        {"value": (("measure", "arm"), Estimate.stack(found, (len(MEASURES), len(arms))))},
        {"measure": list(MEASURES), "arm": cells["arm"].to_numpy()[1:]},
        experiment,
        **{name: value for name, value in cells.attrs.items() if name != "analysis"},
        averaged_over="seeds, then prompt texts",
        interval=f"{said_of(cells)}; prompt effect: jackknife",
        control=f"none but the first arm, {cells['arm'].to_numpy()[0]}",
    )


def measured(experiment: Experiment, cells: xr.Dataset, name: str, arms: Sequence[int], scale: float = 1.0) -> Estimate:
    """One measure of arms together: the mean over prompt texts. `prompt_effect`, whose values are of pairs of prompts, has an
    interval of its own.
    """
    if name == "prompt_effect":
        return Estimate(*effect_of_prompt(experiment, arms))
    return Estimate.mean(over_texts(cells[name].isel(arm=list(arms)).mean("arm", skipna=False)) / scale)


def said_of(cells: xr.Dataset) -> str:
    """What a result says of intervals over the prompt texts of these cells."""
    return intervals.said(len(set(cells["prompt_text"].to_numpy().tolist())))


def _own(picture: Array, reference: Array) -> dict[str, float]:
    return {
        "detail": float(metrics.spectrum_distance(picture, reference)[0]),
        "sharpness": float(np.log2(metrics.laplacian_variance(picture)[0] + metrics.FLOOR)),
    }


def _against(picture: Array, original: Array, original_own: dict[str, float], reference: Array) -> dict[str, float]:
    own = _own(picture, reference)
    difference = (metrics.as_floats(picture) - metrics.as_floats(original)) ** 2
    half = picture.shape[2] // 2
    return {
        "structure": float(metrics.structure_distance(picture, original)[0]),
        **{name: own[name] - original_own[name] for name in own},
        "left": float(np.sqrt(difference[:, :, :half].mean())),
        "right": float(np.sqrt(difference[:, :, half:].mean())),
    }


def _others(axes: xr.Dataset, rows: Array) -> dict[int, list[int]]:
    """Per row, the rows of other prompts and the same seed."""
    texts, seeds = axes["prompt_text"].to_numpy().astype(str), axes["seed"].to_numpy()
    return {
        int(row): [int(other) for other in rows if seeds[other] == seeds[row] and texts[other] != texts[row]] for row in rows
    }


def references(originals: dict[int, Array], texts: Array, real: Array | None) -> dict[int, Array]:
    """Per row, the log spectrum that its pictures are measured by: real pictures' mean, or that of the originals of *other*
    prompts: with its own among them the original would be nearer to it than any other picture.
    """
    if real is not None:
        size = next(iter(originals.values())).shape
        if real.shape[1:] != size:
            raise InputError(
                f"reference pictures must be {size[0]} x {size[1]} pixels as the drawn ones; got {real.shape[1:3]}"
            )
        mean = metrics.radial_spectrum(real)[1].mean(axis=0)
        return dict.fromkeys(originals, mean)
    spectra = {row: metrics.radial_spectrum(picture)[1] for row, picture in originals.items()}
    found = {}
    for row in originals:
        beside = [spectra[other] for other in originals if texts[other] != texts[row]]
        found[row] = np.mean(beside, axis=0) if beside else np.full_like(spectra[row], np.nan)
    return found


def prompt_effect(experiment: Experiment, arms: Sequence[int], original: int, others: dict[int, list[int]]) -> dict[int, float]:
    """Per row, the distance of its latents to those of other prompts under the arms over the same pairs' under the original,
    less 1; the mean over arms. Only pairs that are drawn under an arm count; a row without any is left out.
    """
    found: dict[int, list[float]] = {}
    for arm in arms:
        for row, pairs in pair_distances(experiment, arm, original, others).items():
            under, before = np.array(pairs).sum(axis=0)[1:]
            if before > 0:
                found.setdefault(row, []).append(under / before - 1)
    return {row: float(np.mean(values)) for row, values in found.items()}


def pair_distances(
    experiment: Experiment, arm: int, original: int, others: dict[int, list[int]]
) -> dict[int, list[tuple[int, float, float]]]:
    """Per row, (other row, distance under the arm, distance under the original) of every pair that is drawn under both."""
    latents = {
        which: {row: experiment.latents(row, which).astype(np.float64) for row in others if experiment.done[row, which]}
        for which in (arm, original)
    }

    def distance(which: int, row: int, other: int) -> float:
        return float(np.sqrt(((latents[which][row] - latents[which][other]) ** 2).mean()))

    found: dict[int, list[tuple[int, float, float]]] = {}
    for row, beside in others.items():
        drawn = [other for other in beside if row in latents[arm] and other in latents[arm] and other in latents[original]]
        if drawn:
            found[row] = [(other, distance(arm, row, other), distance(original, row, other)) for other in drawn]
    return found


def effect_of_prompt(
    experiment: Experiment, arms: Sequence[int], original: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """`prompt_effect` of arms together with an interval that knows that every value is of a *pair* of prompts: a jackknife that
    leaves out all pairs of a text, on the log scale. NaN bounds below three texts.
    """
    axes = experiment.axes
    texts = axes["prompt_text"].to_numpy().astype(str)
    rows = np.flatnonzero(experiment.done[:, original])
    others = _others(axes, rows)
    pairs = [
        (texts[row], texts[other], under, before)
        for arm in arms
        for row, values in pair_distances(experiment, arm, original, others).items()
        for other, under, before in values
    ]

    def ratio(kept: list[tuple[Any, Any, float, float]]) -> float:
        before = sum(pair[3] for pair in kept)
        return sum(pair[2] for pair in kept) / before if before > 0 else float("nan")

    names = sorted({pair[0] for pair in pairs})
    if not pairs:
        return (float("nan"),) * 3
    estimate = ratio(pairs)
    if len(names) < 3:
        return estimate - 1, float("nan"), float("nan")
    left_out = np.array([ratio([p for p in pairs if name not in p[:2]]) for name in names])
    low, high = intervals.from_jackknife(np.array(estimate), left_out, scale="ratio", level=level)
    return estimate - 1, float(low) - 1, float(high) - 1


def _scales(axes: xr.Dataset, rows: Array, originals: dict[int, Array], own: dict[int, dict[str, float]]) -> dict[str, float]:
    """What a difference is large against: the structure of another prompt's picture of the same seed; the originals' spread in
    detail and sharpness; 1 for `prompt_effect`. NaN where the originals do not differ: nothing can be large against that.
    """
    others = _others(axes, rows)
    pairs = [(row, other) for row, beside in others.items() for other in beside if other < row]
    distances = [float(metrics.structure_distance(originals[a][None], originals[b][None])[0]) for a, b in pairs]
    spread = {name: float(np.std([values[name] for values in own.values()])) for name in ("detail", "sharpness")}
    spread = {name: value if value > ROUNDING else float("nan") for name, value in spread.items()}
    return {"structure": float(np.mean(distances)) if distances else float("nan"), **spread, "prompt_effect": 1.0}


def over_texts(values: xr.DataArray, rows: Sequence[int] | None = None) -> Array:
    """Values per row, averaged over the rows of each prompt text; rows that are NaN are left out: (text,)."""
    texts = values["prompt_text"].to_numpy().astype(str)
    chosen: list[Any] = []
    for text in dict.fromkeys(texts):
        here = values.to_numpy()[texts == text]
        here = here[~np.isnan(here)]
        if here.size:
            chosen.append(here.mean())
    return np.array(chosen)
