"""Stores of schema 1, before 2026-11-29: one group of all streams, with a stream axis, in place of a group per stream.

They are read as they are, and rows that a resumed run adds are written in their form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr

from interp.base.streams import CONDITIONING, GENERATED, Stream
from interp.store.schema import OF_STREAMS, Groups

PICTURE = "image"  # the generated stream of all models then
AXES = {"embedding": 1, "position": 0}  # where the stream axis lies in a row's array, if not behind step and block


def streams_of(root: zarr.Group) -> tuple[Stream, ...]:
    """The streams of a store."""
    found: dict[str, int] = {}
    for group in (*OF_STREAMS, *(f"bundles/{name}" for name in OF_STREAMS)):
        if f"{group}/stream" in root:
            width = int(root[f"{group}/channel"].shape[0])  # type: ignore[union-attr]
            found |= {str(name): width for name in np.asarray(root[f"{group}/stream"][...])}  # type: ignore[index]
    if not found and "hidden" in root:
        kept: Any = root["hidden"]
        found = {name: int(kept[f"{name}/channel"].shape[0]) for name in (PICTURE, "text") if name in kept}
    of_picture = ("y", "x")
    return tuple(
        Stream(name, GENERATED if name == PICTURE else CONDITIONING, width, of_picture if name == PICTURE else None)
        for name, width in (found or {PICTURE: 0}).items()
    )


class Rows:
    """The form of rows in a store of schema 1."""

    def __init__(self, names: Sequence[str], streams: Sequence[str]) -> None:
        """`names` are the store's streams, `streams` the model's: that of the same name, or else the one at its place."""
        owners = [name if name in streams or place >= len(streams) else streams[place] for place, name in enumerate(names)]
        self.stored = dict(zip(owners, names, strict=True))
        """The name in the store of a model's stream; streams that the store does not have are left out."""

    def joined(self, arrays: Groups, leading: int = 0) -> Groups:
        """A row's arrays, or moments with `leading` more axes, with their streams along one axis."""
        found = {name: variables for name, variables in arrays.items() if name.split("/")[0] not in OF_STREAMS}
        for group in OF_STREAMS:
            if any(name.split("/")[0] == group for name in arrays):
                parts = [arrays[f"{group}/{owner}"] for owner in self.stored]
                found[group] = {
                    name: np.stack([part[name] for part in parts], axis=leading + AXES.get(name, 2)) for name in parts[0]
                }
        return found
