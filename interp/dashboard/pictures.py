"""Pictures on a page: PNGs, a slider between two, their difference, rows with captions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import streamlit as st
import xarray as xr

from interp.dashboard import ask
from interp.dashboard.panel import more
from interp.dashboard.pickers import plain
from interp.figures import style
from interp.figures.drawn import picture_of
from interp.store.experiment import Experiment
from interp.store.schema import Array

LARGEST = 1024  # pixels a side sent to the browser
SMALL = 320

BETWEEN = """
<div class="pair" role="group">
  <div class="frame"><img class="under" alt=""><img class="over" alt=""><div class="edge"></div></div>
  <input type="range" min="0" max="100" value="50" aria-label="slide between the two pictures">
  <div class="names"><span class="left"></span><span class="right"></span></div>
</div>
"""
STYLE = """
.pair { max-width: 420px; color: var(--st-text-color); font-family: var(--st-font); font-size: 0.85rem; }
.frame { position: relative; width: 100%; line-height: 0; }
.frame img { width: 100%; image-rendering: pixelated; display: block; }
.frame .over { position: absolute; inset: 0; }
.edge { position: absolute; top: 0; bottom: 0; width: 2px; background: #d55e00; }
input { width: 100%; accent-color: #0072b2; }
.names { display: flex; justify-content: space-between; gap: 1rem; }
"""
SCRIPT = """
export default function ({ parentElement, data }) {
  const find = (name) => parentElement.querySelector(name);
  find(".under").src = data.second; find(".over").src = data.first;
  find(".under").alt = data.second_name; find(".over").alt = data.first_name;
  find(".left").textContent = data.first_name; find(".right").textContent = data.second_name;
  const slide = () => {
    const at = find("input").value;
    find(".over").style.clipPath = `inset(0 ${100 - at}% 0 0)`;
    find(".edge").style.left = `${at}%`;
  };
  find("input").oninput = slide;
  slide();
}
"""
_between = st.components.v2.component("interp_between", html=BETWEEN, css=STYLE, js=SCRIPT)


def pair(key: str, pictures: Sequence[Array], names: Sequence[str]) -> tuple[Any, float]:
    """A slider between the first two pictures, (y, x, rgb) uint8; next to it all of them, and the two's difference.

    The column next to the slider, and the difference's gain.
    """
    first, second, *further = pictures
    apart, gain = difference(first, second)
    slide, rest = st.columns([2, 3])
    with slide:
        sources = {"first": style.source(first, LARGEST), "second": style.source(second, LARGEST)}
        _between(key=key, data={**sources, "first_name": names[0], "second_name": names[1]})
    with rest:
        strip([first, second, apart, *further], [*names[:2], f"difference, x{gain:.1f}", *names[2:]])
    return rest, gain


def difference(first: Array, second: Array, gain: float | None = None) -> tuple[Array, float]:
    """|second - first| times a gain (by default the largest value becomes white), and the gain."""
    apart = np.abs(second.astype(np.int16) - first.astype(np.int16))
    gain = 255 / max(int(apart.max()), 1) if gain is None else gain
    return np.minimum(apart * gain, 255).astype(np.uint8), gain


def strip(pictures: Sequence[Array | None], names: Sequence[str], *, width: int = 150, most: int = SMALL) -> None:
    """Pictures side by side with names, at most `most` pixels per side; missing ones show "not drawn yet"."""
    with st.container(horizontal=True):
        for picture, name in zip(pictures, names, strict=True):
            with st.container(width=width):
                show(picture, name, width=width, most=most)


def show(picture: Array | None, name: str, *, width: int = 150, most: int = SMALL) -> None:
    """One picture with its name; small pictures are enlarged without smoothing."""
    if picture is None:
        st.caption(f"{plain(name)}: not drawn yet")
        return
    times = max(1, -(-width // picture.shape[1]))
    enlarged = picture.repeat(times, axis=0).repeat(times, axis=1)
    most = max(most, *enlarged.shape[:2]) if times > 1 else most
    st.image(style.source(enlarged, most), caption=plain(name), width=width)


def compared(
    key: str,
    experiment: Experiment,
    row: int,
    first: int,
    second: int,
    *,
    controls: Sequence[int] = (),
    also: Sequence[int] = (),
) -> None:
    """Two arms of a row: the slider, their difference, the arms in `also`, and the controls with their differences."""
    arms = [str(arm) for arm in experiment.axes["arm"].to_numpy()]
    missing = [arms[arm] for arm in (first, second) if not experiment.done[row, arm]]
    if missing:
        st.info(f"Not drawn yet: {plain(', '.join(missing))}. Run the same command again to resume this experiment.")
        return
    shown = [first, second, *also]
    rest, gain = pair(key, [picture_of(experiment, row, arm) for arm in shown], [arms[arm] for arm in shown])
    if controls:
        rest.caption("Controls, each with its difference at the same brightness:")
        with rest, st.container(horizontal=True):
            for arm in controls:
                picture = picture_of(experiment, row, arm)
                with st.container(width=150):
                    show(picture, arms[arm])
                    if picture is not None:
                        show(difference(experiment.picture(row, first), picture, gain)[0], "difference")
    drawn = [arm for arm in dict.fromkeys([first, second, *also, *controls]) if experiment.done[row, arm]]
    strips_of(f"{key}:strip", experiment, [row], drawn)


def strips_of(key: str, experiment: Experiment, rows: list[int], arms: list[int], figure: str = "drawn.strip") -> None:
    """Offer files and Python code of the pictures shown."""
    call = ask.Call(f"figures.{figure}", (ask.opened(experiment), rows, arms))
    more(key, call, partial(cells_of, experiment, rows, arms), call.code)


def cells_of(experiment: Experiment, rows: list[int], arms: list[int]) -> xr.Dataset:
    """The measures taken of these pictures while they were drawn; reads every cell of the experiment."""
    return experiment.cells.isel(prompt=rows, arm=arms)
