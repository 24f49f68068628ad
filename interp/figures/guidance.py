"""Figures of guidances: curves over a swept value, and galleries."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from interp.figures import style
from interp.figures.drawn import picture_grid
from interp.store.experiment import Experiment

SHOWN = ("detail", "sharpness", "structure")


def sweep(found: xr.Dataset) -> go.Figure:
    """Measures by setting; where one braces' value alone was swept, curves over it. From `sweep.compare`."""
    names = [name for name in SHOWN if bool(found["value"].sel(measure=name).notnull().any())]
    made = make_subplots(1, len(names), subplot_titles=names, horizontal_spacing=0.06)
    values = [_number(str(value)) for value in found["value0"].to_numpy()] if "value0" in found.coords else []
    settings = [str(setting) for setting in found["setting"].to_numpy()]
    groups = _groups(settings, values, found)
    for number, name in enumerate(names):
        one = found.sel(measure=name)
        for place, (label, members) in enumerate(groups.items()):
            x = [values[n] for n in members] if values and len(groups) < len(settings) else [settings[n] for n in members]
            value = one["value"].to_numpy()[members]
            made.add_scatter(
                x=x,
                y=value,
                name=label,
                legendgroup=label,
                showlegend=number == 0,
                mode="lines+markers" if len(members) > 1 else "markers",
                line={"color": style.COLOURS[place % len(style.COLOURS)]},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": one["high"].to_numpy()[members] - value,
                    "arrayminus": value - one["low"].to_numpy()[members],
                    "thickness": 0.8,
                    "width": 3,
                },
                row=1,
                col=number + 1,
            )
    made.update_layout(
        template="plotly_white",
        title={"text": "guidance: distance to real pictures", "font": {"size": 15}},
        margin={"l": 60, "r": 20, "t": 110, "b": 60},
        width=1200,
        height=520,
    )
    return style.caption(made, found.attrs)


def _groups(settings: list[str], values: list[float | None], found: xr.Dataset) -> dict[str, list[int]]:
    """Settings that differ in the first braces' value alone go on one curve."""
    groups: dict[str, list[int]] = {}
    more = [str(name) for name in found.coords if str(name).startswith("value") and name != "value0"]
    for number, setting in enumerate(settings):
        swept = values and values[number] is not None
        rest = ", ".join(str(found[name].to_numpy()[number]) for name in more if str(found[name].to_numpy()[number]))
        label = f"{_shape(setting, found, number)}{f' ({rest})' if rest else ''}" if swept else setting
        groups.setdefault(label, []).append(number)
    return groups


def _shape(setting: str, found: xr.Dataset, number: int) -> str:
    """A setting with its first swept value taken out."""
    return setting.replace(str(found["value0"].to_numpy()[number]), "x", 1)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def gallery(experiment: Experiment, prompts: Sequence[int], settings: Sequence[int]) -> go.Figure:
    """Pictures: a row for every prompt and seed, a column for every setting."""
    axes = experiment.axes
    names = [str(axes["arm"].to_numpy()[setting]) for setting in settings]
    texts = [style.short(str(axes["prompt_text"].to_numpy()[prompt])) for prompt in prompts]
    drawn = experiment.done
    grid = [[experiment.picture(p, s) if drawn[p, s] else None for s in settings] for p in prompts]
    return picture_grid(grid, names, texts, f"guidance: {experiment.plan.get('model')}")
