"""Running means and variances; bundles of a few prompts each, for runs too large to keep the statistics of every prompt.

    bundles/stats/NAME, bundles/gates/NAME     (bundle, moment, step, block, stream, ..., channel) float32

A bundle covers the done rows among `bundle * size .. (bundle + 1) * size - 1`. Bundles are written whole, so workers, shards
and resumed runs do not update stored moments. The summary is the combination of all bundles.
"""

from __future__ import annotations

import numpy as np

from interp.store.schema import FOLDED, Array

Groups = dict[str, dict[str, Array]]
MOMENTS = ("mean", "variance")
PART = 2**15  # elements per pass: they fit in the processor's cache


class Moments:
    """Running mean and population variance of arrays, one at a time, in float64 (Welford, 1962).

    The order of the additions is the order of the calls, so the same rows give the same bits.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0
        self.mean = np.zeros(shape, np.float64)
        self.square = np.zeros(shape, np.float64)

    def add(self, value: Array) -> None:
        """Add one array."""
        self.count += 1
        flat, means, squares = np.reshape(value, -1), self.mean.reshape(-1), self.square.reshape(-1)
        for start in range(0, means.size, PART):
            part = slice(start, start + PART)
            given, mean, square = flat[part], means[part], squares[part]
            delta = given - mean
            mean += delta / self.count
            square += delta * (given - mean)

    def join(self, mean: Array, variance: Array, count: int) -> None:
        """Add the mean and population variance of `count` arrays (Chan, Golub, LeVeque, 1979)."""
        if not count:
            return
        total = self.count + count
        delta = mean - self.mean
        self.square += count * np.asarray(variance, np.float64) + delta**2 * (self.count * count / total)
        self.mean += delta * (count / total)
        self.count = total

    def result(self) -> Array:
        """(moment, ...) float32: mean, variance."""
        if not self.count:
            return np.full((2, *self.mean.shape), np.nan, np.float32)
        return np.array([self.mean, self.square / self.count], np.float32)


class Bundle:
    """Running moments of one bundle."""

    def __init__(self) -> None:
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
