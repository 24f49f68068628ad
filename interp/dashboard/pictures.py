"""Pictures on a page: PNGs, a slider between two, their difference, rows with captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from interp.dashboard.pickers import plain
from interp.figures import style

Array = NDArray[Any]
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


def between(key: str, first: Array, second: Array, first_name: str, second_name: str) -> None:
    """Two pictures, (y, x, rgb) uint8, one over the other with a slider: the first on the left of it, the second on the right."""
    data = {
        "first": style.source(first, LARGEST),
        "second": style.source(second, LARGEST),
        "first_name": first_name,
        "second_name": second_name,
    }
    _between(key=key, data=data)


def difference(first: Array, second: Array) -> tuple[Array, float]:
    """|second - first|, brightened so that its largest value is white, and by how much."""
    apart = np.abs(second.astype(np.int16) - first.astype(np.int16))
    gain = 255 / max(int(apart.max()), 1)
    return (apart * gain).astype(np.uint8), gain


def row(pictures: Sequence[Array | None], names: Sequence[str], *, width: int = 150) -> None:
    """Pictures side by side with names under them; what is not drawn is said."""
    with st.container(horizontal=True):
        for picture, name in zip(pictures, names, strict=True):
            if picture is None:
                st.caption(f"{plain(name)}: not drawn yet", width=width)
            else:
                st.image(style.source(picture, SMALL), caption=plain(name), width=width)
