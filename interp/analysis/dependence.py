"""Whether pictures are pictures of their prompts: those of one prompt are more alike than those of two."""

from __future__ import annotations

import numpy as np

from interp.analysis.intervals import from_pseudo
from interp.analysis.result import Estimate
from interp.analysis.sampled import FEWEST, Sampled, alike
from interp.metrics import distances
from interp.store.schema import Array


def on_prompt(pictures: Array, units: Sampled) -> Estimate:
    """1 - W / B: mean square distances of blurred pictures of one prompt, and of two, always with other noise.

    `pictures` is (row, y, x, rgb). About 0 where pictures do not depend on the prompt, 1 where they depend on it alone; NaN
    where no prompt has two seeds. The interval is a jackknife over texts, whose pairs are left out with them.
    """
    return of_flat(distances.low_pass(pictures).reshape(len(pictures), -1), units)


def of_flat(flat: Array, units: Sampled) -> Estimate:
    """The same of (row, value)."""
    squares = (flat**2).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0.0)
    texts, seeds = np.array(units.texts), np.arange(len(flat)) if units.seeds is None else np.array(units.seeds)
    other_noise = np.triu(seeds[:, None] != seeds, 1)
    same = texts[:, None] == texts

    def share(kept: Array) -> float:
        pairs = other_noise & kept[:, None] & kept
        within, between = apart[pairs & same], apart[pairs & ~same]
        return float(1 - within.mean() / between.mean()) if len(within) and len(between) and between.any() else float("nan")

    value, groups = share(np.ones(len(flat), bool)), alike(texts)
    if len(groups) < FEWEST or np.isnan(value):
        return Estimate(value)
    left_out = np.array([share(~np.isin(np.arange(len(flat)), rows)) for rows in groups])
    return Estimate(value, *from_pseudo(np.array(value), [len(groups) * value - (len(groups) - 1) * left_out]))
