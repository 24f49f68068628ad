"""Pairs of pictures, matched by every kind of descriptor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from interp.analysis import correspondence
from interp.analysis.correspondence import Pair
from interp.experiments.clean import Array
from interp.experiments.descriptors import KINDS, Extractor


@dataclasses.dataclass(frozen=True)
class Correspondence:
    """Pairs of pictures, scored by every kind of descriptor."""

    extractor: Extractor
    pairs: tuple[Pair, ...]
    texts: tuple[str, ...]
    thresholds: tuple[float, ...]

    def measure(self, number: int) -> dict[str, Array]:
        """Of one pair: PCK of every kind, (step, block, threshold), and of the controls, (threshold)."""
        made, pair, grid = self.extractor, self.pairs[number], self.extractor.prepared.layout.image_grid
        described = [made.describe(pair.pictures[n], self.texts.index(pair.prompts[n]), 2 * number + n) for n in (0, 1)]
        tokens = correspondence.token_of(pair.points[0], grid, pair.pictures.shape[1:3])
        found = {kind: np.zeros((len(made.steps), len(made.blocks), len(self.thresholds))) for kind in KINDS}
        for place in np.ndindex(len(made.steps), len(made.blocks)):
            at = made.steps[place[0]], made.blocks[place[1]]
            for kind in KINDS:
                ours, theirs = (np.atleast_3d(one[at][kind].T).T for one in described)  # (draw, token, channel)
                matched = [correspondence.match(a, b, tokens) for a, b in zip(ours, theirs, strict=True)]
                each = [correspondence.correct(pair, predicted, grid, self.thresholds) for predicted in matched]
                found[kind][place] = np.mean(each, axis=0)
        return {**found, **correspondence.controls(pair, grid, self.thresholds)}

    def collect(self, done: Sequence[Mapping[str, Array]]) -> xr.Dataset:
        """PCK over pairs; see `correspondence.summarise`."""
        made = self.extractor
        shares = {kind: np.stack([part[kind] for part in done]) for kind in KINDS}
        controls = {name: np.stack([part[name] for part in done]) for name in correspondence.CONTROLS}
        coordinates = {"step": list(made.steps), "block": list(made.blocks), "threshold": list(self.thresholds)}
        attributes = {
            "model": made.prepared.model.name,
            "weights": made.prepared.plan.weights,
            "channels": list(made.channels),
            "grid": list(made.prepared.layout.image_grid),
            "pairs": len(self.pairs),
            "seed": made.seed,
        }
        return correspondence.summarise(shares, controls, coordinates, attributes)
