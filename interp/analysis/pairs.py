"""Every drawn picture of an experiment beside the original of its row: the measures that other analyses average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.errors import InputError
from interp.metrics import pictures as metrics
from interp.store.experiment import Experiment
from interp.store.schema import Array

MEASURES = {
    "structure": "root mean square difference of the blurred pictures, 0..1",
    "detail": "distance of the fine radial spectrum to the reference, less the original's, decades: > 0 is worse",
    "sharpness": "log2 of the Laplacian variance over the original's",
    "prompt_effect": "distance between latents of two prompts and one seed over the originals', less 1: -1 is no prompt left",
}
HALVES = ("left", "right")


def compare(experiment: Experiment, original: int = 0, reference: Array | None = None) -> xr.Dataset:
    """Measures of every cell against the original (the arm of that number), NaN where one of them is not drawn.

    structure, detail, sharpness, prompt_effect   (prompt, arm)
    left, right                            (prompt, arm)   root mean square pixel difference in the halves of the picture
    changed_energy                         (prompt, arm)   of the edited states' energy
    scale_...                              attributes: what each measure is large against (`scales`)

    `reference` is real pictures, (picture, y, x, rgb), whose mean spectrum detail is measured by; without it, the originals'.
    """
    rows = np.flatnonzero(experiment.done[:, original])
    if not rows.size:
        raise InputError(f"{experiment.path}: no row is drawn yet; let the experiment go on first")
    axes, found = experiment.axes, {}
    for name in (*MEASURES, *HALVES):
        found[name] = np.full(experiment.done.shape, np.nan)
    originals = dict(zip(rows.tolist(), experiment.pictures(original)[1], strict=True))
    spectra = metrics.radial_spectrum(np.stack(list(originals.values())) if reference is None else reference)[1]
    mean = spectra.mean(axis=0)
    own = {row: _own(picture[None], mean) for row, picture in originals.items()}
    others = _others(axes, rows)
    between = _between_prompts(experiment, original, rows, others)
    for arm in range(experiment.done.shape[1]):
        drawn, pictures = experiment.pictures(arm)
        apart = _between_prompts(experiment, arm, rows, others)
        for row, picture in zip(drawn.tolist(), pictures, strict=True):
            if row in originals:
                cell = _against(picture[None], originals[row][None], own[row], mean)
                with np.errstate(invalid="ignore", divide="ignore"):
                    cell["prompt_effect"] = apart[row] / between[row] - 1
                for name, value in cell.items():
                    found[name][row, arm] = value
    return xr.Dataset(
        {
            **{name: (("prompt", "arm"), values) for name, values in found.items()},
            "changed_energy": experiment.cells["changed_energy"],
        },
        axes.coords,
        {
            "analysis": "pairs",
            "reference": "the originals" if reference is None else f"{len(reference)} real pictures",
            **{f"scale_{name}": value for name, value in _scales(axes, rows, originals, own).items()},
        },
    )


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


def _between_prompts(experiment: Experiment, arm: int, rows: Array, others: dict[int, list[int]]) -> dict[int, float]:
    """Per row, the mean distance of its latents to those of other prompts under the same arm and seed; NaN without any."""
    latents = {int(row): experiment.latents(int(row), arm) for row in rows if experiment.done[row, arm]}
    found = {}
    for row in (int(row) for row in rows):
        beside = [latents[other] for other in others[row] if other in latents] if row in latents else []
        distances = [np.sqrt(((latents[row].astype(np.float64) - other) ** 2).mean()) for other in beside]
        found[row] = float(np.mean(distances)) if len(distances) == len(others[row]) and distances else float("nan")
    return found


def _scales(axes: xr.Dataset, rows: Array, originals: dict[int, Array], own: dict[int, dict[str, float]]) -> dict[str, float]:
    """What a difference is large against: the structure of another prompt's picture of the same seed; the originals' spread in
    detail and sharpness; 1 for `prompt_effect`.
    """
    others = _others(axes, rows)
    pairs = [(row, other) for row, beside in others.items() for other in beside if other < row]
    distances = [float(metrics.structure_distance(originals[a][None], originals[b][None])[0]) for a, b in pairs]
    spread = {name: float(np.std([values[name] for values in own.values()])) for name in ("detail", "sharpness")}
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
