"""Figures of guidances: curves over a swept value, and galleries."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import plotly.graph_objects as go
import xarray as xr

from interp.figures import marks, style
from interp.figures.drawn import strip
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
    title = f"guidance, against {found.attrs['reference']}"
    made, places = style.panels(title, titles, shared=False, width=1200, height=520)
    curves = _curves(found)
    for name, place in zip(names, places, strict=True):
        one = found.sel(measure=name)
        for number, (label, members) in enumerate(curves.items()):
            here, line = one.isel(setting=list(members.values())), {"color": style.COLOURS[number % len(style.COLOURS)]}
            mode = "lines+markers" if len(members) > 1 else "markers"
            marks.intervals(made, list(members), here, "value", label, mode=mode, line=line, **place)
        first = str(found["setting"].to_numpy()[0])
        made.add_hline(y=float(one["value"][0]), line=marks.DASHED, annotation_text=first, **place)
    made.update_xaxes(title_text="x" if any(len(members) > 1 for members in curves.values()) else "")
    made.update_annotations(font_size=12)
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
    for number, several in list(enumerate(shapes))[1:]:
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
    names = [str(experiment.axes["arm"].to_numpy()[setting]) for setting in settings]
    made = strip(experiment, prompts, settings, names)
    return made.update_layout(title_text=style.plain(f"guidance: {experiment.plan.get('model')}"))
