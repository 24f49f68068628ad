"""Galleries scored: every setting's numbers with intervals, and what may be said of them against a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from interp.analysis import intervals, paired
from interp.errors import InputError
from interp.evaluation.gallery import Gallery
from interp.evaluation.scorers import Scorer
from interp.store.schema import Array

MARGIN = 0.2  # of the baseline's deviation over prompts: what is called a small effect (Cohen 1988)
FEWEST = 10  # prompts, below which halves are too small for neighbours' distances: no interval
HALVES = 100
"""Halves of the prompts that set measures are taken of again: drawn without repeats, since a picture that occurs twice changes
distances to neighbours; the spread of halves about their mean is that of the whole (half-samples, McCarthy 1969)."""


def evaluate(
    gallery: Gallery,
    scorers: Sequence[Scorer],
    *,
    baseline: str | None = None,
    margin: float = MARGIN,
    on_setting: Callable[[int, int], None] = lambda done, total: None,
) -> xr.Dataset:
    """Score every setting and compare it with the baseline, by default the first.

    value, low, high, over..., win..., p, p_holm, effect, verdict   (setting, measure)   see `interp.analysis.paired`
    scores                                  (setting, measure, prompt)   means over a prompt's seeds
    set_value, set_low, set_high            (setting, set_measure)       of all pictures of a setting; half-samples of prompts
    meaning, better (measure); set_meaning, set_better (set_measure)
    """
    single = [(scorer, m) for scorer in scorers for m in scorer.measures if m.of == "picture"]
    whole = [(scorer, m) for scorer in scorers for m in scorer.measures if m.of == "set"]
    if not single:
        raise InputError("scorers must measure something of single pictures")
    if len(gallery.prompts) < 1:
        raise InputError(f"{gallery.source} holds no pictures")
    scores, sets = [], []
    for number in range(len(gallery.settings)):
        images = gallery.read(number)
        found = {m: values for scorer in scorers for m, values in scorer.pictures(images, gallery.prompts).items()}
        scores.append([gallery.by_prompt(found[m.name]) for _, m in single])
        sets.append([_set_interval(gallery, images, scorer, [m.name for _, m in whole]) for scorer in scorers])
        on_setting(number + 1, len(gallery.settings))
    coordinates = {
        "setting": np.array(gallery.settings, object),
        "measure": np.array([m.name for _, m in single], object),
        "prompt": np.array(gallery.texts(), object),
    }
    table = xr.DataArray(np.array(scores), coordinates, ("setting", "measure", "prompt"))
    # what is best at zero is compared by how far it is from it
    distance = table.copy(data=np.where(_at_zero(single), np.abs(table.to_numpy()), table.to_numpy()))
    lower = [m.name for _, m in single if m.better in ("lower", "zero")]
    compared = paired.compare(distance, baseline, margin=margin, lower_is_better=lower)
    low, high = intervals.bootstrap(table.transpose("prompt", "setting", "measure").to_numpy())
    dims = ("setting", "measure")
    found_sets = np.array([np.concatenate(parts, axis=1) for parts in sets])  # (setting, 3, set_measure)
    return (
        compared.assign(
            value=(dims, table.mean("prompt").to_numpy()),
            low=(dims, low),
            high=(dims, high),
            scores=table,
            set_value=(("setting", "set_measure"), found_sets[:, 0]),
            set_low=(("setting", "set_measure"), found_sets[:, 1]),
            set_high=(("setting", "set_measure"), found_sets[:, 2]),
        )
        .assign_coords(
            meaning=("measure", np.array([m.meaning for _, m in single], object)),
            better=("measure", np.array([m.better for _, m in single], object)),
            set_measure=np.array([m.name for _, m in whole], object),
            set_meaning=("set_measure", np.array([m.meaning for _, m in whole], object)),
            set_better=("set_measure", np.array([m.better for _, m in whole], object)),
        )
        .assign_attrs(
            analysis="evaluation",
            source=gallery.source,
            rows=f"{len(gallery.prompts)} pictures of each setting, {len(gallery.texts())} prompts",
            set_interval=f"95%, normal, from {HALVES} half-samples of prompts",
            **gallery.facts,
        )
    )


def _at_zero(single: Sequence[tuple[Scorer, Any]]) -> Array:
    return np.array([m.better == "zero" for _, m in single])[None, :, None]


def _set_interval(gallery: Gallery, images: Array, scorer: Scorer, names: Sequence[str]) -> Array:
    """Value, low and high of a scorer's set measures, (3, set measure)."""
    own = [m.name for m in scorer.measures if m.of == "set"]
    if not own:
        return np.zeros((3, 0))
    looked, prompts = scorer.looked_at(images, gallery.prompts), np.array(gallery.prompts)
    value = [scorer.sets(looked, gallery.prompts)[name] for name in own]
    groups = [np.flatnonzero(prompts == text) for text in gallery.texts()]
    if len(groups) < FEWEST:
        return np.array([value, [np.nan] * len(own), [np.nan] * len(own)])
    draw, drawn = np.random.default_rng(0), []
    for _ in range(HALVES):
        rows = np.concatenate([groups[number] for number in draw.permutation(len(groups))[: len(groups) // 2]])
        again = scorer.sets(looked[rows], [str(text) for text in prompts[rows]])
        drawn.append([again[name] for name in own])
    reach = stats.norm.ppf(0.975) * np.std(drawn, axis=0)
    return np.array([value, value - reach, value + reach])
