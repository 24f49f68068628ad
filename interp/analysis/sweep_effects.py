"""Compare guidances: detail against real pictures, structure against the true pictures, wins against the first setting."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from interp.analysis.result import Estimate, result, whole_rows
from interp.analysis.sampled import Sampled
from interp.metrics import distances as metrics
from interp.store.experiment import Experiment
from interp.store.schema import Array

MEASURES = {
    "detail": "distance of the fine radial spectrum to real pictures', decades: lower is better",
    "sharpness": "log2 of the Laplacian variance over real pictures' median: 0 is as real ones",
    "structure": "root mean square difference of the blurred picture to the real one of its prompt: lower is better",
    "saturation": "share of pixels at 0 or 255 in any colour",
}
LOWER_WINS = ("detail", "structure")


def compare(experiment: Experiment, reference: Array | None = None) -> xr.Dataset:
    """Measures of every setting, with intervals over prompt texts.

    value, low, high            (measure, setting)
    over_first, _low, _high     (measure, setting)   less the first setting's, paired by prompt and seed
    win, win_low, win_high      (won, setting)       how often a picture is nearer to real ones than the first setting's
    forwards                    (setting)            forwards of one row that a picture takes

    `reference` is real pictures, (picture, y, x, rgb); where there is one for every prompt text, in their order, structure is
    measured against it. Without a reference, the first setting's pictures are the reference.
    """
    rows = whole_rows(experiment, under="under every setting")
    axes = experiment.axes
    every = axes["prompt_text"].to_numpy().astype(str)
    texts, everyone = every[rows], list(dict.fromkeys(every))
    real = _drawn(experiment, 0, rows) if reference is None else reference
    one_each = reference is not None and len(reference) == len(everyone)
    truth = real[[everyone.index(text) for text in texts]] if one_each else None
    spectrum = metrics.radial_spectrum(real)[1].mean(axis=0)
    sharp = float(np.median(np.log2(metrics.laplacian_variance(real) + metrics.FLOOR)))
    settings = axes["guidance"].to_numpy().astype(str)
    arms = (_drawn(experiment, arm, rows) for arm in range(len(settings)))
    found = np.stack([_measure(images, spectrum, sharp, truth) for images in arms], axis=1)  # (row, setting, measure)
    units = Sampled(texts.tolist(), axes["seed"].to_numpy()[rows].tolist())
    dims = ("setting", "measure")
    return result(
        "sweep",
        {
            "value": (dims, Estimate.mean(found, units)),
            "over_first": (dims, Estimate.mean(found - found[:, :1], units)),
            "win": (("setting", "won"), Estimate.share(_won(found), units)),
            "forwards": ("setting", np.nanmean(experiment.cells["forwards"].to_numpy(), axis=0)),
        },
        {
            "setting": settings,
            "measure": list(MEASURES),
            "won": LOWER_WINS,
            **{name: ("setting", axes[name].to_numpy()) for name in map(str, axes.coords) if name.startswith("value")},
        },
        experiment,
        reference="the first setting's pictures" if reference is None else f"{len(reference)} real pictures",
        structure_against="nothing: no real picture of each prompt" if truth is None else "the real picture of the prompt",
        rows=f"{len(rows)} pictures of each setting",
        averaged_over="seeds, then prompt texts",
        interval=f"{units.said()}; wins: Wilson",
        control=f"the first setting, {settings[0]}",
    )


def settings(experiment: Experiment) -> list[dict[str, Any]]:
    """The parameters of each setting of a sweep, such as cfg.scale or dg.block; in the order of the arms."""
    found = []
    for setting in experiment.parameters["guidance"]:
        methods = setting or []
        line: dict[str, Any] = {"methods": "+".join(method["method"] for method in methods) or "none"}
        for method in methods:
            line |= {f"{method['method']}.{name}": value for name, value in method.items() if name not in ("method", "source")}
        found.append(line)
    return found


def _drawn(experiment: Experiment, arm: int, rows: Array) -> Array:
    drawn, pictures = experiment.pictures(arm)
    return pictures[np.isin(drawn, rows)]


def _measure(images: Array, spectrum: Array, sharp: float, truth: Array | None) -> Array:
    """(row, measure)."""
    structure = np.full(len(images), np.nan) if truth is None else metrics.structure_distance(images, truth)
    at_the_ends = ((images == 0) | (images == 255)).any(axis=-1).mean(axis=(1, 2))
    own = np.log2(metrics.laplacian_variance(images) + metrics.FLOOR) - sharp
    return np.stack([metrics.spectrum_distance(images, spectrum), own, structure, at_the_ends], axis=1)


def _won(found: Array) -> Array:
    """(row, setting, won): whether it is lower than the first setting's, half at a tie; NaN where it is not measured."""
    places = [list(MEASURES).index(name) for name in LOWER_WINS]
    return np.asarray(np.sign(found[:, :1, places] - found[..., places]) / 2 + 0.5)
