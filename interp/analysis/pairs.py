"""Measures of every picture of an experiment against the original of its row, which other analyses average."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import xarray as xr

from interp.analysis import prompt_effect, sources
from interp.analysis.result import NO_ESTIMATE, Estimate, result, whole_rows
from interp.analysis.sampled import Sampled
from interp.base.errors import InputError
from interp.base.prompts import same_text
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


def compare(experiment: Experiment, reference: Array | None = None) -> xr.Dataset:
    """Measures of every cell against the original (the first arm), NaN where one of them is not drawn.

    structure, detail, sharpness, prompt_effect   (prompt, arm)
    left, right                            (prompt, arm)   root mean square pixel difference in the halves of the picture
    changed_energy, dose                   (prompt, arm)   of the edited states' energy; of all blocks' and steps' energy
    scale_...                              attributes: the unit of each measure (`_scales`)

    `reference` is real pictures, (picture, y, x, rgb), whose mean spectrum detail is measured by; without it, the originals of
    other prompts (NaN where there is one prompt).
    """
    rows = np.flatnonzero(experiment.done[:, 0])
    if not rows.size:
        raise InputError(f"{experiment.path}: no row is drawn yet; resume the experiment first")
    axes = experiment.axes
    found = {name: np.full(experiment.done.shape, np.nan) for name in (*MEASURES, *HALVES)}
    originals = dict(zip(rows.tolist(), experiment.pictures(0)[1], strict=True))
    spectrum = references(originals, axes["prompt_text"].to_numpy().astype(str), reference)
    own = {row: _own(picture[None], spectrum[row]) for row, picture in originals.items()}
    for arm in range(experiment.done.shape[1]):
        for row, picture in zip(*experiment.pictures(arm), strict=True):
            if row in originals:
                for name, value in _against(picture[None], originals[row][None], own[row], spectrum[row]).items():
                    found[name][row, arm] = value
        for row, value in prompt_effect.by_row(experiment, arm).items():
            found["prompt_effect"][row, arm] = value
    return xr.Dataset(
        {
            **{name: (("prompt", "arm"), values) for name, values in found.items()},
            "changed_energy": experiment.cells["changed_energy"],
            "dose": experiment.cells["dose"],
        },
        axes.coords,
        {
            "reference": "the originals of other prompts" if reference is None else f"{len(reference)} real pictures",
            **{f"scale_{name}": value for name, value in _scales(axes, rows, originals, own).items()},
        },
    )


def by_arm(experiment: Experiment, reference: Array | None = None) -> xr.Dataset:
    """Measures of every arm against the first one's picture of the same row (`MEASURES`), mean over prompt texts.

    value, low, high   (measure, arm)
    """
    cells = compare(experiment, reference).isel(prompt=whole_rows(experiment))
    arms = [[arm] for arm in range(1, cells.sizes["arm"])]
    return result(
        experiment.kind,
        {"value": (("measure", "arm"), measured(experiment, cells, arms))},
        {"measure": list(MEASURES), "arm": cells["arm"].to_numpy()[1:]},
        experiment,
        **cells.attrs,
        averaged_over="seeds, then prompt texts",
        interval=f"{said_of(cells)}; prompt effect: jackknife",
        control=f"none but the first arm, {cells['arm'].to_numpy()[0]}",
    )


Groups = Sequence[Sequence[int]]
"""Arms that are measured together."""


def measured(
    experiment: Experiment,
    cells: xr.Dataset,
    groups: Groups,
    shape: tuple[int, ...] = (-1,),
    *,
    names: Sequence[str] = tuple(MEASURES),
    scaled: bool = False,
) -> Estimate:
    """Measures of groups of arms, mean over prompt texts: (measure, *shape); `scaled`: in units of `scale_...`.

    `prompt_effect`, whose values are of pairs of prompts, has an interval of its own and is never scaled.
    """

    def one(name: str, arms: Sequence[int]) -> Estimate:
        if name == "prompt_effect":
            return Estimate(*prompt_effect.of_arms(experiment, arms))
        return Estimate.mean(*known(together(cells, name, arms, scaled)))

    return Estimate.stack([one(name, arms) for name in names for arms in groups], (len(names), *shape))


def over_control(
    cells: xr.Dataset,
    groups: Groups,
    controls: Groups,
    shape: tuple[int, ...] = (-1,),
    *,
    scaled: bool = False,
    effect: bool = False,
) -> Estimate:
    """The same less those of a control of each group, in the rows drawn under both; NaN where a group has none.

    `prompt_effect` is left out, or with `effect` has no interval: its values are of pairs of prompts.
    """

    def one(name: str, arms: Sequence[int], control: Sequence[int]) -> Estimate:
        of_pairs = name == "prompt_effect"
        if not control or (of_pairs and not effect):
            return NO_ESTIMATE
        found = Estimate.mean(*known(together(cells, name, arms, scaled) - together(cells, name, control, scaled)))
        return Estimate(found.value) if of_pairs else found

    every = [one(name, *pair) for name in MEASURES for pair in zip(groups, controls, strict=True)]
    return Estimate.stack(every, (len(MEASURES), *shape))


def together(cells: xr.Dataset, name: str, arms: Sequence[int], scaled: bool = False) -> xr.DataArray:
    """One measure, mean over arms; NaN where one of them is not drawn."""
    return cells[name].isel(arm=list(arms)).mean("arm", skipna=False) / (cells.attrs[f"scale_{name}"] if scaled else 1.0)


def said_of(cells: xr.Dataset) -> str:
    """The description of intervals over the prompt texts of these cells."""
    return sources.units(cells).said()


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


def references(originals: dict[int, Array], texts: Array, real: Array | None) -> dict[int, Array]:
    """Per row, the log spectrum that its pictures are compared with: the mean of real pictures, or of the originals of *other*
    prompts. With its own original among them, that one would be nearer to it than any other picture.
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


def _scales(axes: xr.Dataset, rows: Array, originals: dict[int, Array], own: dict[int, dict[str, float]]) -> dict[str, float]:
    """The unit of each measure: the structure of another prompt's picture, of the same seed where prompts share
    seeds; the originals' spread in detail and
    sharpness; 1 for `prompt_effect`. NaN where the originals do not differ.
    """
    texts = [same_text(text) for text in axes["prompt_text"].to_numpy()]
    other = [(a, b) for a, b in itertools.combinations(rows.tolist(), 2) if texts[a] != texts[b]]
    pairs = [(a, b) for a, b in prompt_effect.same_seed(axes, rows) if b < a] or other
    distances = [float(metrics.structure_distance(originals[a][None], originals[b][None])[0]) for a, b in pairs]
    spread = {name: float(np.std([values[name] for values in own.values()])) for name in ("detail", "sharpness")}
    spread = {name: value if value > ROUNDING else float("nan") for name, value in spread.items()}
    return {"structure": float(np.mean(distances)) if distances else float("nan"), **spread, "prompt_effect": 1.0}


def known(values: xr.DataArray) -> tuple[Array, Sampled]:
    """The values of the rows that have one, (row,), and what these rows are samples of."""
    rows = np.flatnonzero(values.notnull().to_numpy())
    return values.to_numpy()[rows], sources.units(values).part(rows)
