"""The question frames: its options, results, table and figure."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

from interp import analysis, figures
from interp.analysis.table import table
from interp.base.options import Channels, OneStream
from interp.base.streams import GENERATED
from interp.questions.question import Question

if TYPE_CHECKING:
    import xarray as xr


@dataclasses.dataclass(frozen=True)
class Frames:
    """The channels."""

    channels: Channels = None
    stream: OneStream = GENERATED


def _side_by_side(found: xr.Dataset) -> xr.Dataset:
    """Every part and ratio as a variable: of the massive channels, and of the others."""
    shown = {}
    for name, axis in (("size", "part"), ("order", "contrast")):
        for value in found[axis].to_numpy():
            ends = ("", "_low", "_high") if name == "order" else ("",)
            for end in ends:
                shown[f"{value}{end}"] = found[f"{name}{end}"].sel({axis: value, "set": "massive"}, drop=True)
            shown[f"{value}, others"] = found[name].sel({axis: value, "set": "ordinary"}, drop=True)
    shown |= {f"{value}, beyond": found["beyond"].sel(contrast=value, drop=True) for value in found["contrast"].to_numpy()}
    return found.assign(shown)


FRAMES = Question(
    "frames",
    "Compare massive channels over a video's latent frames: first, boundaries, insides (--record stats,frames).",
    Frames,
    lambda run, asked: {"frames": analysis.frames.over_frames(run, asked.channels, stream=asked.stream)},
    {
        "size by part of a frame, over the mean over frames": ("frames", table("frames", _side_by_side)),
        "early over late": ("frames", table("fading", lambda found: found.sel(set="massive"))),
    },
    lambda run, results, asked: {"frames": partial(figures.channels.frames, results["frames"])},
)
