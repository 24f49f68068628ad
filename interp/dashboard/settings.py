"""Pick a sweep's setting value by value: each picker offers the values left by the ones before it."""

from __future__ import annotations

from typing import Any

from interp.analysis.sweep_effects import settings
from interp.dashboard.pickers import pick
from interp.store.experiment import Experiment


def setting(experiment: Experiment, side: str, default: int) -> int:
    """The arm of one setting. `side` distinguishes the pickers of two settings; `default` is the initial arm."""
    lines = [{name: str(value) for name, value in line.items()} for line in settings(experiment)]
    remaining = list(range(len(lines)))
    for name in _varied(lines):
        options = list(dict.fromkeys(lines[arm].get(name, "-") for arm in remaining))
        if len(options) > 1:
            first = lines[default].get(name, "-")
            first = first if first in options else options[0]
            label = name.replace("dg.scale", "dg.scale (w)")
            value = pick(f"{side}_{name}", label, options, default=first, where="these settings", beside=False)
            remaining = [arm for arm in remaining if lines[arm].get(name, "-") == value]
    return remaining[0]


def _varied(lines: list[dict[str, Any]]) -> list[str]:
    """The parameters that differ between settings, methods first."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    return [name for name in names if len({line.get(name, "-") for line in lines}) > 1]


def seeds(experiment: Experiment) -> list[int]:
    """Rows of one seed, picked in the sidebar."""
    values = experiment.axes["seed"].to_numpy().tolist()
    seed = pick("seed", "Seed", sorted(set(values)))
    return [row for row, value in enumerate(values) if value == seed]
