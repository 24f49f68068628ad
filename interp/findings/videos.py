"""Claims about videos, judged from traces: STAS (arXiv 2603.17825), as its abstract states them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from interp.analysis import frames
from interp.findings.claims import UNKNOWN, Evidence, Verdict, by_all, finite, span, would_see
from interp.store.traced_run import open_run

RARE = 0.05  # of random sets of channels
ENDS = ("_low", "_high", "")
NO_FRAMES = "the model draws pictures, not videos of several frames."


def over_frames(evidence: Evidence) -> xr.Dataset | None:
    """The massive channels over latent frames, in blocks since they are all massive; `None` of a model of pictures."""
    if not evidence.setup.model.anatomy.generated.in_frames:
        return None
    found = frames.over_frames(open_run(evidence.path("frames")), evidence.channels)
    born = int(evidence.massive["birth"].sel(channel=evidence.channels).max())
    return found.sel(block=found["block"] >= born)


def frames_in_order(evidence: Evidence) -> Verdict:
    """In early steps: the first frame against boundaries, and these against insides; and random channels."""
    found = over_frames(evidence)
    return Verdict(UNKNOWN, NO_FRAMES) if found is None else in_order(found)


def in_order(found: xr.Dataset) -> Verdict:
    """The verdict on the order of frames, from a result of `frames.over_frames`."""
    here = found.sel(third="early")
    arrays = [here[f"order{end}"].sel(set="massive").to_numpy() for end in ENDS] + [here["beyond"].to_numpy()]
    kept = np.isfinite(arrays).all(axis=(0, 1))
    low, high, value, beyond = (array[:, kept] for array in arrays)
    names = found["contrast"].to_numpy()
    said = ", ".join(f"{name} {span(one)}" for name, one in zip(names, value, strict=True))
    said = f"in early steps, by block: {said}; random sets of other channels that reach it: {span(beyond)}."
    good, bad = np.all((low > 1) & (beyond < RARE), axis=0), np.any(high < 1, axis=0)
    return by_all(np.asarray(good), np.asarray(bad), said, would_see(np.log(low), np.log(high)), order=value, beyond=beyond)


def frames_early(evidence: Evidence) -> Verdict:
    """The first frame against insides, early over late; and random channels."""
    found = over_frames(evidence)
    return Verdict(UNKNOWN, NO_FRAMES) if found is None else in_order_early(found)


def in_order_early(found: xr.Dataset) -> Verdict:
    """The verdict on when the order is clearest, from a result of `frames.over_frames`."""
    low, high, value, beyond = finite(*(found[f"fade{end}"].sel(set="massive") for end in ENDS), found["fade_beyond"])
    here = f"first / interior, early over late, by block: {span(value)}; random sets that reach it: {span(beyond)}."
    return by_all((low > 1) & (beyond < RARE), high < 1, here, would_see(np.log(low), np.log(high)), fade=value, beyond=beyond)
