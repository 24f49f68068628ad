"""Figures of guidances: curves over a swept value, and galleries."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import plotly.graph_objects as go
import xarray as xr

from interp.figures import style
from interp.figures.drawn import picture_grid
from interp.store.experiment import Experiment

SHOWN = {
    "detail": "distance to their spectra, decades",
    "sharpness": "log2 over theirs",
    "structure": "distance to the prompt's own",
}


def sweep(found: xr.Dataset) -> go.Figure:
    """Measures over the first swept value, one curve per other value; the first setting grey. From `sweep_effects.compare`."""
    names = [name for name in SHOWN if bool(found["value"].sel(measure=name).notnull().any())]
    titles = [f"{name}: {SHOWN[name]}" for name in names]
    made = style.subplots(1, len(names), subplot_titles=titles, horizontal_spacing=0.06)
    curves = _curves(found)
    for number, name in enumerate(names):
        one = found.sel(measure=name)
        for place, (label, members) in enumerate(curves.items()):
            value, low, high = (one[part].to_numpy()[list(members.values())] for part in ("value", "low", "high"))
            made.add_scatter(
                x=list(members),
                y=value,
                name=label,
                legendgroup=label,
                showlegend=number == 0,
                mode="lines+markers" if len(members) > 1 else "markers",
                line={"color": style.COLOURS[place % len(style.COLOURS)]},
                error_y=style.error(value, low, high, thickness=0.8, width=3),
                row=1,
                col=number + 1,
            )
        first = {"color": style.CONTROL, "dash": "dash"}
        made.add_hline(
            y=float(one["value"][0]), line=first, annotation_text=str(found["setting"].to_numpy()[0]), row=1, col=number + 1
        )
    made.update_xaxes(title_text="x" if any(len(members) > 1 for members in curves.values()) else "")
    made.update_annotations(font_size=12)
    made.update_layout(
        title={"text": f"guidance, against {found.attrs['reference']}", "font": {"size": 15}},
        margin={"l": 60, "r": 20, "t": 110, "b": 60},
        width=1200,
        height=520,
    )
    return style.caption(made, found.attrs)


def _curves(found: xr.Dataset) -> dict[str, dict[float | str, int]]:
    """Map each curve to the setting's number at each swept value. A curve is named by its setting with the first swept value
    replaced by x; where the value occurs more than once, the place that most settings share is used.
    """
    settings = [str(setting) for setting in found["setting"].to_numpy()]
    values = [str(value) for value in found["value0"].to_numpy()] if "value0" in found.coords else [""] * len(settings)
    shapes = [_shapes(setting, value) for setting, value in zip(settings, values, strict=True)]
    common = collections.Counter(shape for several in shapes for shape in several)
    curves: dict[str, dict[float | str, int]] = {}
    for number, several in enumerate(shapes):
        if number == 0:
            continue
        best = max(several, key=lambda shape: common[shape], default="")
        if best and common[best] > 1:
            curves.setdefault(best, {})[_number(values[number])] = number
        else:
            curves[settings[number]] = {settings[number]: number}
    return curves


def _shapes(setting: str, value: str) -> list[str]:
    """The setting with one occurrence of the value replaced by x, for each occurrence."""
    if not value:
        return []
    starts = [place for place in range(len(setting)) if setting.startswith(value, place)]
    return [f"{setting[:place]}x{setting[place + len(value) :]}" for place in starts]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def gallery(experiment: Experiment, prompts: Sequence[int], settings: Sequence[int]) -> go.Figure:
    """Pictures: one row per prompt and seed, one column per setting."""
    axes = experiment.axes
    names = [str(axes["arm"].to_numpy()[setting]) for setting in settings]
    texts = [style.short(str(axes["prompt_text"].to_numpy()[prompt])) for prompt in prompts]
    drawn = experiment.done
    grid = [[experiment.picture(p, s) if drawn[p, s] else None for s in settings] for p in prompts]
    return picture_grid(grid, names, texts, f"guidance: {experiment.plan.get('model')}")
