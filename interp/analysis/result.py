"""Estimates with their intervals, and the Datasets of results."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import intervals
from interp.analysis.sampled import Sampled
from interp.base.errors import InputError
from interp.store.experiment import Experiment
from interp.store.schema import Array

Axes = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value, or an array of them, with the bounds of its interval; NaN where there is none."""

    value: Any
    low: Any = np.nan
    high: Any = np.nan

    @classmethod
    def mean(cls, values: Array, units: Sampled) -> Estimate:
        """The mean over texts of (row, ...) values. NaN of nothing."""
        return cls(intervals.mean_of_texts(values, units), *intervals.interval(values, units)) if len(values) else NO_ESTIMATE

    @classmethod
    def of_mean(cls, values: Array, units: Sampled, function: intervals.Function, scale: str = "plain", **how: Any) -> Estimate:
        """A function of the mean over texts: of (sample, ...) means, (sample, ...); its interval is made on a scale."""
        value = function(intervals.mean_of_texts(values, units)[None])[0]
        return cls(value, *intervals.interval(values, units, function, scale=scale, **how))

    @classmethod
    def share(cls, values: Array, units: Sampled) -> Estimate:
        """The mean of shares in 0..1, such as wins."""
        if not len(values):
            return NO_ESTIMATE
        return cls(intervals.mean_of_texts(values, units), *intervals.proportion(values, units))

    @classmethod
    def stack(cls, parts: Sequence[Estimate], shape: tuple[int, ...] = (-1,)) -> Estimate:
        """Many estimates as one of an array."""
        return cls(*(np.array([getattr(part, end) for part in parts], float).reshape(shape) for end in ENDS))

    def variables(self, name: str, axes: Axes) -> dict[str, tuple[Axes, Any]]:
        """As variables of a Dataset: NAME, NAME_low, NAME_high (value, low, high)."""
        before = "" if name == "value" else f"{name}_"
        return {name: (axes, self.value), f"{before}low": (axes, self.low), f"{before}high": (axes, self.high)}


ENDS = ("value", "low", "high")
NO_ESTIMATE = Estimate(np.nan)


def result(
    analysis: str,
    data: Mapping[str, tuple[Axes, Any] | xr.DataArray],
    coordinates: Mapping[str, Any],
    of: Experiment | None = None,
    *,
    averaged_over: str,
    interval: str,
    control: str = "",
    note: str = "",
    **facts: Any,
) -> xr.Dataset:
    """Make a result: variables (DataArrays, or axes and an array or `Estimate`), coordinates (values, or (axis, values)), and
    attributes: what was averaged, the kind of interval, the control, and the model of the experiment `of`.
    """
    variables: dict[str, Any] = {}
    for name, given in data.items():
        estimated = isinstance(given, tuple) and isinstance(given[1], Estimate)
        variables |= given[1].variables(name, given[0]) if estimated else {name: given}
    said = {"averaged_over": averaged_over, "interval": interval, "control": control, "note": note}
    about = {} if of is None else {"model": str(of.plan.get("model")), "weights": str(of.plan.get("weights", ""))}
    attributes = {"analysis": analysis, **about, **facts, **{name: text for name, text in said.items() if text}}
    return xr.Dataset(variables, {name: _texts(values) for name, values in coordinates.items()}, attributes)


def _texts(values: Any) -> Any:
    """Texts as objects, which stores and xarray do not convert."""
    if isinstance(values, tuple) and len(values) == 2 and isinstance(values[0], str) and not isinstance(values[1], str):
        return values[0], _texts(values[1])
    array = np.asarray(values)
    return array.astype(object) if array.dtype.kind in "US" else values


def whole_rows(experiment: Experiment, what: str = "row", under: str = "under every arm") -> Array:
    """Rows that are drawn in every cell; without any, InputError."""
    rows = np.flatnonzero(experiment.done.all(axis=1))
    if not rows.size:
        raise InputError(f"{experiment.path}: no {what} is drawn {under} yet; resume the experiment first")
    return rows
