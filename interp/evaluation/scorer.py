"""Scorers of pictures. A scorer declares its measures of single pictures and of whole sets."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from interp.metrics import distances, quality, set_distances
from interp.store.schema import Array


@dataclasses.dataclass(frozen=True)
class Measure:
    """One number of a picture, or of a set of pictures."""

    name: str
    meaning: str
    better: str
    """higher, lower, or zero (nearer to 0)."""
    of: str = "picture"
    """picture, or set."""
    asks: bool = False
    """Whether it compares a picture with its prompt; if so, it does not apply to unconditional pictures."""
    limits: tuple[float, float] = (-math.inf, math.inf)
    """Range of possible values; intervals of set measures are clipped to it."""


class Scorer(Protocol):
    """Scores pictures; one instance is used for every setting."""

    measures: tuple[Measure, ...]

    def check(self, prompts: Sequence[str]) -> None:
        """Raise an error for prompts that it cannot score, before anything is drawn; by default for none."""
        return

    @abc.abstractmethod
    def pictures(self, images: Array, prompts: Sequence[str]) -> Mapping[str, Array]:
        """Each measure of single pictures, (picture); NaN where it does not apply."""

    def extract(self, images: Array, prompts: Sequence[str]) -> Array:
        """Features for measures of sets, (picture, feature); (picture, 0) without set measures, by default."""
        return np.zeros((len(images), 0))

    def sets(self, features: Array, prompts: Sequence[str]) -> Mapping[str, float]:
        """Each measure of a set; by default there is none."""
        return {}


class Plain(Scorer):
    """Measures without weights: sharpness, edges, colours and, given real pictures, the distance to their radial spectrum."""

    def __init__(self, real: Array | None = None) -> None:
        self.spectrum = None if real is None else distances.radial_spectrum(real)[1].mean(axis=0)
        spectrum = (Measure("spectrum", "distance of the fine radial spectrum to real pictures', decades", "lower"),)
        self.measures = (
            Measure("sharpness", "log2 of the variance of the luminance's Laplacian", "higher"),
            Measure("edges", "share of pixels on an edge", "higher"),
            Measure("colourfulness", "Hasler and Suesstrunk 2003, of colours in 0..255", "higher"),
            Measure("saturation", "mean saturation of HSV", "higher"),
            Measure("contrast", "deviation of the luminance", "higher"),
            *(() if real is None else spectrum),
        )

    def pictures(self, images: Array, prompts: Sequence[str]) -> Mapping[str, Array]:
        """Each measure, (picture)."""
        found = {"sharpness": distances.sharpness(images), "edges": quality.edge_density(images)}
        found |= quality.colour_statistics(images)
        return found if self.spectrum is None else {**found, "spectrum": distances.spectrum_distance(images, self.spectrum)}


def set_measures(name: str) -> tuple[Measure, ...]:
    """The measures of sets in the features of the named network."""
    where = f"in the {name}'s features"
    distance = f"to real pictures, {where}; it is no FID"
    return (
        Measure(f"{name} Frechet distance", distance, "lower", "set", limits=(0, math.inf)),
        Measure(f"{name} precision", f"share of pictures among the real ones, {where}", "higher", "set", limits=(0, 1)),
        Measure(f"{name} recall", f"share of real pictures among them, {where}", "higher", "set", limits=(0, 1)),
    )


def set_scores(name: str, features: Array, real: Array) -> dict[str, float]:
    """The measures of one set."""
    precision, recall = set_distances.precision_recall(features, real)
    distance = set_distances.frechet_distance(features, real)
    return {f"{name} Frechet distance": distance, f"{name} precision": precision, f"{name} recall": recall}
