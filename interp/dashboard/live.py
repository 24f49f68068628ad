"""Drawing with the demo model while the page waits: one picture at a time, whoever asks."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import streamlit as st

from interp.dashboard.pickers import plain

if TYPE_CHECKING:
    import xarray as xr

WAIT = 120.0  # seconds for somebody else's picture
MOST = 50  # steps


@st.cache_resource(show_spinner="Loading the demo model ...")
def _model() -> Any:
    """The demo model on the CPU; torch is imported here and nowhere else in the dashboard."""
    import interp

    return interp.load("demo", device="cpu")


@st.cache_resource(show_spinner=False)
def _lock() -> threading.Lock:
    """One for all sessions."""
    return threading.Lock()


def draw(prompt: str, guidances: list[str], steps: int, seed: int) -> list[xr.Dataset] | None:
    """One picture for each guidance, with a bar; `None` if others kept the model busy."""
    import interp

    lock = _lock()
    bar = st.progress(0.0, "waiting for another session's picture" if lock.locked() else "starting")
    if not lock.acquire(timeout=WAIT):
        bar.empty()
        st.warning(f"Another session has been drawing for more than {WAIT:.0f} s. Try again.")
        return None
    try:
        model, drawn = _model(), []
        for number, guidance in enumerate(guidances):

            def report(step: int, number: int = number, guidance: str = guidance) -> None:
                done = (number + (step + 1) / steps) / len(guidances)
                bar.progress(min(done, 1.0), f"{plain(guidance or 'no guidance')}: step {step + 1} of {steps}")

            given = None if guidance in ("", "none") else guidance
            drawn.append(interp.generate(model, [prompt], guidance=given, steps=steps, seed=seed, on_step=report))
        return drawn
    finally:
        bar.empty()
        lock.release()
