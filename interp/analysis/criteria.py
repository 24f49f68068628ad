"""Definitions of massive channels: one function each, with its source.

A criterion takes a quantity of every sample (prompt, step), averages it over samples, scores the channels of each block and
stream by it, and selects. `parse("top:12")` reads one from the command line; the number is its one parameter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr
from scipy.stats import norm

from interp.analysis import sources
from interp.base.errors import InputError, StoreError
from interp.base.streams import GENERATED
from interp.store.schema import Array


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A definition of massive."""

    name: str
    parameters: Mapping[str, float]
    source: str
    quantity: Callable[[sources.Source], xr.DataArray]
    """Of every sample: (prompt, step, block, stream, channel)."""
    score: Callable[[Array], Array]
    """Of the quantity's mean over samples, along the last axis (channel)."""
    selects: Callable[[Array, Array], Array]
    """(mean quantity, score) -> boolean, along the last axis."""
    limit: Callable[[int], float] | None = None
    """(channels) -> the score from which on a channel is selected, where that is not the parameter."""

    def threshold(self, channels: int) -> float | None:
        """The score from which on a channel is selected; `None` where the criterion selects a number of channels."""
        if self.limit is not None:
            return self.limit(channels)
        name, value = next(iter(self.parameters.items()))
        return None if name == "k" else value

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value:g}" for name, value in self.parameters.items())
        return f"{self.name}({values})"


def itself(mean: Array) -> Array:
    """A score that is the quantity itself."""
    return mean


def mean_abs(source: sources.Source) -> xr.DataArray:
    """Mean |x| over tokens."""
    return sources.statistics(source)["mean_abs"]


def robust(rate: float = 0.05) -> Criterion:
    """Modified z-score of log mean |x| and a multiple of the median channel, both above what the largest of so many channels
    reaches by chance with probability `rate`: needs no k. The default.

    Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993): 0.6745 (v - median) / MAD; on the logarithm, since channels
    differ by factors. By chance means: of channels whose sizes are lognormal, and of the half-normal ones of a state with one
    strong random direction. Measured rates from 64 to 6,144 channels: docs/statistics.md. Heavier tails are what it looks for.
    """

    def score(mean: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(mean)
            off = logs - np.median(logs, axis=-1, keepdims=True)
            return np.asarray(0.6745 * off / np.median(np.abs(off), axis=-1, keepdims=True))

    def selects(mean: Array, score: Array) -> Array:
        channels = mean.shape[-1]
        least = norm.ppf(1 - rate / (2 * channels)) / norm.ppf(0.75)
        found: Array = (score >= limit(channels)) & (mean >= least * np.median(mean, axis=-1, keepdims=True))
        return found

    def limit(channels: int) -> float:
        return float(norm.ppf(1 - rate / channels) * (1 + channels**-0.5))  # the MAD of few channels is uncertain

    source = "Iglewicz and Hoaglin 1993, on log mean |x|, calibrated for the number of channels"
    return Criterion("robust", {"rate": rate}, source, mean_abs, score, selects, limit)


def ratio(times: float = 10.0) -> Criterion:
    """Mean |x| at least `times` the median channel's; DiTF (arXiv 2505.18584) mentions 100."""

    def score(mean: Array) -> Array:
        return np.asarray(mean / np.median(mean, axis=-1, keepdims=True))

    source = "ratio to the median channel; DiTF (arXiv 2505.18584) speaks of 100"
    return Criterion("ratio", {"times": times}, source, mean_abs, score, lambda mean, score: score >= times)


def top(k: float = 8) -> Criterion:
    """The k channels of largest mean |x|: SPARK, equation 1, takes k = 8; it always selects k."""
    source = "SPARK, equation 1 (k = 8)"
    return Criterion("top", {"k": k}, source, mean_abs, itself, lambda mean, score: largest(score, int(k)))


def top_signed(k: float = 8) -> Criterion:
    """The k channels of largest |mean x| over tokens: "absolute channel mean" in Few Channels (arXiv 2605.13974).

    A channel of mixed sign ranks lower here than by mean |x|.
    """

    def quantity(source: sources.Source) -> xr.DataArray:
        return abs(sources.statistics(source)["mean"])

    source = "Few Channels (arXiv 2605.13974): absolute channel mean over image tokens"
    return Criterion("top_signed", {"k": k}, source, quantity, itself, lambda m, score: largest(score, int(k)))


def sun(share: float = 0.5, least: float = 100.0, times: float = 1000.0) -> Criterion:
    """Some |x| above 100 and at least 1000 times the state's median |x|: Sun et al. (arXiv 2402.17762).

    The score is the share of samples in which a channel holds such an element; selected from `share` on.
    """

    def quantity(source: sources.Source) -> xr.DataArray:
        statistics = sources.statistics(source)
        if "median_abs" not in statistics:
            raise StoreError("criterion sun needs stats/median_abs, which this store does not have; trace it again")
        largest = statistics["max_abs"]
        found = ((largest > least) & (largest >= times * statistics["median_abs"])).astype(np.float32)
        return found.where(largest.notnull())

    source = "Sun et al. (arXiv 2402.17762)"
    parameters = {"share": share, "least": least, "times": times}
    return Criterion("sun", parameters, source, quantity, itself, lambda mean, score: score >= share)


def energy(times: float = 10.0) -> Criterion:
    """A share of the state's energy, E[x^2], at least `times` an even split's: after SPARK's energy shares."""

    def quantity(source: sources.Source) -> xr.DataArray:
        return energy_of(sources.statistics(source))

    def score(mean: Array) -> Array:
        return np.asarray(mean / mean.mean(axis=-1, keepdims=True))

    source = "after SPARK's energy shares"
    return Criterion("energy", {"times": times}, source, quantity, score, lambda mean, score: score >= times)


def energy_of(statistics: xr.Dataset) -> xr.DataArray:
    """E[x^2] over tokens, from mean and variance."""
    return statistics["var"] + statistics["mean"] ** 2


def two_sigma(share: float = 0.5) -> Criterion:
    """Elements with |x - mean| >= 2 std of their sample, over tokens and channels: TinyFusion (CVPR 2025). Needs hidden states.

    The score is the share of a channel's elements; selected from `share` on.
    """

    def quantity(source: sources.Source) -> xr.DataArray:
        streams = [GENERATED] if isinstance(source, xr.Dataset) else list(source.hidden.children)
        found = [outside(sources.hidden(source, stream)).expand_dims(stream=[stream]) for stream in streams]
        joined = xr.concat(found, "stream", join="outer", coords="minimal", compat="override")
        return joined.transpose("prompt", "step", "block", "stream", "channel")

    source = "TinyFusion (CVPR 2025): 2 standard deviations of the sample"
    return Criterion("two_sigma", {"share": share}, source, quantity, itself, lambda m, score: score >= share)


def outside(states: xr.DataArray) -> xr.DataArray:
    """Share of each channel's tokens two standard deviations or more from the sample's mean."""
    mean, deviation = states.mean(("token", "channel")), states.std(("token", "channel"))
    return (abs(states - mean) >= 2 * deviation).mean("token", dtype=np.float32)


def largest(sizes: Array, k: int) -> Array:
    """Whether each channel is among the k largest, along the last axis; of equal ones the first."""
    channels = sizes.shape[-1]
    if not 1 <= k <= channels:
        raise InputError(f"k must lie in 1..{channels}; got {k}")
    known = np.where(np.isnan(sizes), -np.inf, sizes)
    least = np.partition(known, channels - k, axis=-1)[..., channels - k, None]
    found, equal = known > least, known == least
    wanted = k - found.sum(axis=-1, keepdims=True)
    return np.asarray(found | (equal & (np.cumsum(equal, axis=-1, dtype=np.int32) <= wanted)))


CRITERIA: dict[str, Callable[..., Criterion]] = {
    function.__name__: function for function in (robust, ratio, top, top_signed, sun, energy, two_sigma)
}


def parse(text: str | Criterion) -> Criterion:
    """A criterion by name, with its first parameter after a colon: `robust:0.01`, `ratio:100`, `top:12`."""
    if isinstance(text, Criterion):
        return text
    name, _, number = str(text).partition(":")
    if name not in CRITERIA:
        raise InputError(f"criterion must be one of {', '.join(CRITERIA)}, such as top:12; got {text!r}")
    try:
        return CRITERIA[name](float(number)) if number else CRITERIA[name]()
    except ValueError:
        raise InputError(f"criterion {name} takes a number, such as {name}:10; got {number!r}") from None
