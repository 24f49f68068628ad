"""Pick an arm or a sweep's setting value by value: each picker offers the values left by the ones before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from interp.analysis.sweep_effects import settings
from interp.dashboard.pickers import pick
from interp.store.experiment import Experiment


def arm_of(
    labels: Mapping[str, Sequence[Any]],
    arms: Sequence[int],
    key: str,
    titled: Callable[[str], str],
    *,
    default: int | None = None,
    **more: Any,
) -> int:
    """One of these arms. `labels` are all arms' values by name; a label of one value needs no picker.

    Pickers are named KEY_LABEL and titled by `titled`; `default` is the initial arm.
    """
    for name, values in labels.items():
        options = list(dict.fromkeys(values[arm] for arm in arms))
        if len(options) > 1:
            first = values[default] if default is not None and values[default] in options else options[0]
            slider = not isinstance(first, str)
            value = pick(f"{key}_{name}", titled(name), options, default=first, slider=slider, **more)
            arms = [arm for arm in arms if values[arm] == value]
    return arms[0]


def setting(experiment: Experiment, side: str, default: int) -> int:
    """The arm of one setting. `side` distinguishes the pickers of two settings; `default` is the initial arm."""
    lines = settings(experiment)
    values = {name: [str(line.get(name, "-")) for line in lines] for name in dict.fromkeys(n for line in lines for n in line)}
    titled = lambda name: name.replace("dg.scale", "dg.scale (w)")  # noqa: E731
    return arm_of(values, range(len(lines)), side, titled, default=default, where="these settings", beside=False)


def seeds(experiment: Experiment) -> list[int]:
    """Rows of one seed, picked in the sidebar."""
    values = experiment.axes["seed"].to_numpy().tolist()
    seed = pick("seed", "Seed", sorted(set(values)))
    return [row for row, value in enumerate(values) if value == seed]
