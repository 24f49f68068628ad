"""Bundles: means and variances over a few prompts each, for runs too large to keep the statistics of every prompt.

    bundles/stats/NAME, bundles/gates/NAME     (bundle, moment, step, block, stream, ..., channel) float32

A bundle covers the done rows among `bundle * size .. (bundle + 1) * size - 1`. Bundles are written whole, so workers, shards
and resumed runs do not update stored moments. The summary is the combination of all bundles.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from interp.store.moments import Moments
from interp.store.schema import FOLDED, Array

Groups = dict[str, dict[str, Array]]


class Bundle:
    """Running moments of one bundle."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._moments: dict[tuple[str, str], Moments] = {}

    def add(self, arrays: Groups) -> Groups:
        """Add a row's statistics and gates; return the arrays that are still to be written for the row itself."""
        for group in FOLDED:
            for name, array in arrays.get(group, {}).items():
                moments = self._moments.setdefault((group, name), Moments(np.shape(array)))
                moments.add(array)
        return {group: variables for group, variables in arrays.items() if group not in FOLDED}

    def moments(self) -> Groups:
        """(moment, ...) of every statistic and gate: mean and population variance over the bundle's rows."""
        found: Groups = {}
        for (group, name), moments in self._moments.items():
            found.setdefault(group, {})[name] = moments.result()
        return found
