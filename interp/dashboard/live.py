"""Drawing with the demo model while the page waits: one picture at a time over all sessions."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import streamlit as st

from interp.dashboard.pickers import plain

if TYPE_CHECKING:
    import xarray as xr

WAIT = 120.0  # seconds to wait for another session's picture
MOST = 50  # steps
POLL = 0.2  # seconds between two reads of the progress


@st.cache_resource(show_spinner="Loading the demo model ...")
def _model() -> Any:
    """The demo model on the CPU; the dashboard imports torch only here."""
    import interp

    return interp.load("demo", device="cpu")


@st.cache_resource(show_spinner=False)
def _lock() -> threading.Lock:
    """One lock for all sessions."""
    return threading.Lock()


def draw(prompt: str, guidances: list[str], steps: int, seed: int) -> list[xr.Dataset] | None:
    """One picture per guidance, with a progress bar; `None` if other sessions keep the model busy."""
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
            with ThreadPoolExecutor(1, "interp-live") as pool:
                done: list[int] = []  # steps; the tracer reports them from its own thread, which cannot draw on the page
                how: dict[str, Any] = {"guidance": None if guidance in ("", "none") else guidance, "steps": steps, "seed": seed}
                work = pool.submit(interp.generate, model, [prompt], **how, on_step=done.append)
                while not work.done():
                    share = (number + min(len(done) / steps, 1.0)) / len(guidances)
                    bar.progress(share, f"{plain(guidance or 'no guidance')}: step {len(done)} of {steps}")
                    time.sleep(POLL)
                drawn.append(work.result())
        return drawn
    finally:
        bar.empty()
        lock.release()
