"""Score galleries: every setting's measures with intervals, and paired comparisons with a baseline."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import xarray as xr

from interp.analysis import intervals, paired, sampled
from interp.analysis.result import Estimate
from interp.base.errors import InputError
from interp.evaluation.gallery import Gallery
from interp.evaluation.scorer import Measure, Scorer
from interp.metrics.set_distances import NEIGHBOUR
from interp.store.schema import Array

MARGIN = 0.2  # of the baseline's deviation over prompts: a small effect (Cohen 1988)
FEWEST = 20  # prompts; of fewer, intervals of set measures cover too little (docs/statistics.md)
CHUNK = 64  # pictures scored together
AT_ZERO = "best at zero, so that what is compared is the distance from it, of either sign"


@dataclasses.dataclass(frozen=True)
class Scored:
    """A gallery's pictures, scored once for any number of comparisons."""

    gallery: Gallery
    measures: tuple[Measure, ...]
    """Measures of single pictures."""
    scores: Array
    """(setting, measure, row)."""
    scorers: tuple[Scorer, ...]
    features: tuple[tuple[Array, ...], ...]
    """Features for measures of sets: per scorer and setting, (row, feature)."""
    one_prompt: tuple[str, ...]
    """The prompt of every row; prompts that draw the same pictures are one."""

    def part(self, *, settings: Sequence[int] | None = None, rows: Sequence[int] | None = None, asked: bool = True) -> Scored:
        """Select settings and rows; `asked=False` drops measures that need a prompt."""
        gallery = self.gallery
        kept = list(range(len(gallery.settings))) if settings is None else list(settings)
        chosen = list(range(len(gallery.prompts))) if rows is None else list(rows)
        measures = [number for number, one in enumerate(self.measures) if asked or not one.asks]
        return dataclasses.replace(
            self,
            gallery=gallery.part(chosen).of_settings(kept),
            measures=tuple(self.measures[number] for number in measures),
            scores=self.scores[np.ix_(kept, measures, chosen)],
            features=tuple(tuple(own[number][chosen] for number in kept) for own in self.features),
            one_prompt=tuple(self.one_prompt[row] for row in chosen),
        )


def score(gallery: Gallery, scorers: Sequence[Scorer]) -> Scored:
    """Score every picture of every setting."""
    measures = [m for scorer in scorers for m in scorer.measures]
    names = [m.name for m in measures]
    if not names:
        raise InputError("scorers must measure something")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"scorers must not share a measure; {twice} is measured by two of them")
    if len(gallery.prompts) < 1:
        raise InputError(f"{gallery.source} holds no pictures")
    singles = tuple(m for m in measures if m.of == "picture")
    settings = [_looked(gallery, number, scorers) for number in range(len(gallery.settings))]
    table = np.array([[found[m.name] for m in singles] for found, _, _ in settings], float)
    by_scorer = zip(*(seen for _, seen, _ in settings), strict=True)
    shape = (len(settings), len(singles), len(gallery.prompts))
    drawn = list(zip(*(digests for _, _, digests in settings), strict=True))
    return Scored(gallery, singles, table.reshape(shape), tuple(scorers), tuple(by_scorer), _merged(gallery.prompts, drawn))


def _merged(prompts: Sequence[str], drawn: Sequence[tuple[bytes, ...]]) -> tuple[str, ...]:
    """The prompts of rows; prompts that draw the same pictures under every setting have the name of the first of them."""
    first: dict[tuple[bytes, ...], str] = {}
    name = {text: text for text in prompts}
    for text, pictures in zip(prompts, drawn, strict=True):
        name[text] = name[first.setdefault(pictures, text)]
    return tuple(name[text] for text in prompts)


def _looked(gallery: Gallery, number: int, scorers: Sequence[Scorer]) -> tuple[dict[str, Array], list[Array], list[bytes]]:
    """Scores of a setting's pictures by measure, each scorer's features of sets, read in chunks, and the pictures' hashes."""
    images, found, seen = gallery.read(number), dict[str, Array](), list[Array]()
    chunks = [slice(start, start + CHUNK) for start in range(0, len(images), CHUNK)]
    for scorer in scorers:
        parts = [scorer.pictures(images[chunk], gallery.prompts[chunk]) for chunk in chunks]
        found |= {name: np.concatenate([np.asarray(part[name], float) for part in parts]) for name in parts[0]}
        seen.append(np.concatenate([scorer.extract(images[chunk], gallery.prompts[chunk]) for chunk in chunks]))
    return found, seen, [hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in images]


def evaluate(gallery: Gallery, scorers: Sequence[Scorer], *, baseline: str | None = None, margin: float = MARGIN) -> xr.Dataset:
    """Score every setting and compare it with the baseline, by default the first: see `compare`."""
    return compare(score(gallery, scorers), baseline=baseline, margin=margin)


def compare(scored: Scored, *, baseline: str | None = None, margin: float = MARGIN) -> xr.Dataset:
    """Compare every setting with the baseline, by default the first.

    value, low, high, over..., win..., p, p_holm, effect, verdict   (setting, measure)   see `interp.analysis.paired`
    scores                                  (setting, measure, prompt)   means over a prompt's seeds
    set_value, set_low, set_high            (setting, set_measure)       of all pictures of a setting
    meaning, better (measure); set_meaning, set_better (set_measure)
    """
    gallery, measures = scored.gallery, scored.measures
    whole = [m for scorer in scored.scorers for m in scorer.measures if m.of == "set"]
    coordinates = {
        "setting": np.array(gallery.settings, object),
        "measure": np.array([m.name for m in measures], object),
        "prompt": np.array(gallery.texts(), object),
    }
    table = xr.DataArray(gallery.by_prompt(scored.scores), coordinates, ("setting", "measure", "prompt"))
    # a measure best at zero is compared by each picture's distance from zero: errors of two seeds must not cancel
    at_zero = np.array([m.better == "zero" for m in measures], bool)[None, :, None]
    rows = {**coordinates, "prompt": np.arange(len(gallery.prompts)), "seed": ("prompt", list(gallery.seeds))}
    rows["prompt_text"] = ("prompt", np.array(scored.one_prompt, object))
    distance = xr.DataArray(np.where(at_zero, np.abs(scored.scores), scored.scores), rows, table.dims)
    lower = [m.name for m in measures if m.better in ("lower", "zero")]
    compared = paired.compare(distance, baseline, margin=margin, lower_is_better=lower)
    shown = Estimate.mean(np.moveaxis(scored.scores, -1, 0), sampled.Sampled(scored.one_prompt, gallery.seeds))
    features = zip(scored.scorers, scored.features, strict=True)
    each = [[set_interval(gallery, scorer, own) for own in settings] for scorer, settings in features]
    sets: Array = np.concatenate(each, axis=2)  # (setting, 3, set_measure)
    parts = {"value": shown.value, "low": shown.low, "high": shown.high}
    best_at_zero = [m.name for m in measures if m.better == "zero"]
    return (
        compared.assign({name: (("setting", "measure"), values) for name, values in parts.items()})
        .assign(scores=table)
        .assign({f"set_{name}": (("setting", "set_measure"), sets[:, place]) for place, name in enumerate(parts)})
        .assign_coords(
            meaning=("measure", np.array([m.meaning for m in measures], object)),
            better=("measure", np.array([m.better for m in measures], object)),
            set_measure=np.array([m.name for m in whole], object),
            set_meaning=("set_measure", np.array([m.meaning for m in whole], object)),
            set_better=("set_measure", np.array([m.better for m in whole], object)),
        )
        .assign_attrs(
            analysis="evaluation",
            source=gallery.source,
            rows=f"{len(gallery.prompts)} pictures of each setting, {len(gallery.texts())} prompts",
            set_interval=_said_of_sets(gallery),
            note=f"{', '.join(best_at_zero)}: {AT_ZERO}" if best_at_zero else "",
            metric_weights="; ".join(text for scorer in scored.scorers for text in getattr(scorer, "weights", {}).values()),
            **gallery.facts,
        )
    )


def _said_of_sets(gallery: Gallery) -> str:
    pictures, units = len(gallery.prompts), sampled.Sampled(gallery.prompts, gallery.seeds)
    if pictures <= NEIGHBOUR:
        return f"none, and no value: sets need more than {NEIGHBOUR} pictures, these are {pictures}"
    if units.shared:
        return "none: prompts share their noise"
    if units.prompts < FEWEST:
        return f"none: fewer than {FEWEST} prompts"
    return f"95%, Hall's t from {sampled.FEW_GROUPS} groups of prompts"


def set_interval(gallery: Gallery, scorer: Scorer, features: Array) -> Array:
    """Value, low and high of a scorer's set measures, (3, set measure)."""
    measures = [m for m in scorer.measures if m.of == "set"]
    own = [m.name for m in measures]
    if not own:
        return np.zeros((3, 0))
    if len(features) <= NEIGHBOUR:
        return np.full((3, len(own)), np.nan)
    prompts = np.array(gallery.prompts)
    found = scorer.sets(features, gallery.prompts)
    value = np.array([found[name] for name in own])
    units, groups = sampled.Sampled(gallery.prompts, gallery.seeds), sampled.few(sampled.alike(gallery.prompts))
    if units.prompts < FEWEST or units.shared:
        return np.array([value, [np.nan] * len(own), [np.nan] * len(own)])

    def of(chosen: Array) -> Array:
        parts = [np.concatenate([groups[number] for number in np.flatnonzero(kept)]) for kept in chosen]
        each = [scorer.sets(features[rows], [str(text) for text in prompts[rows]]) for rows in parts]
        return np.array([[one[name] for name in own] for one in each])

    low, high = intervals.from_pseudo(value, [intervals.without_two(len(groups), value, of)])
    least, most = np.array([m.limits for m in measures]).T
    return np.array([value, np.maximum(low, least), np.minimum(high, most)])
