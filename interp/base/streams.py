"""Streams: the sequences of tokens of a transformer, such as a picture's and a text's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from interp.base.errors import InputError

Role = Literal["generated", "conditioning", "reference"]
ROLES: tuple[Role, ...] = ("generated", "conditioning", "reference")
GENERATED, CONDITIONING, REFERENCE = ROLES
FRAME = "frame"
"""The axis of a video's latent frames."""
ALL = "both"
"""In place of a stream's name: every stream."""


@dataclasses.dataclass(frozen=True)
class Stream:
    """One stream of tokens: states (batch, token, channel)."""

    name: str
    role: Role
    """`generated`: what the model draws; `conditioning`: a text; `reference`: a picture that it is given."""
    width: int
    """Channels of its states."""
    axes: tuple[str, ...] | None = None
    """The axes that its tokens fill, in order, such as ("y", "x"), ("frame", "y", "x") or ("time",); `None` for a text."""

    @property
    def in_frames(self) -> bool:
        """Whether its tokens fill the frames of a video, one after the other."""
        return self.axes is not None and self.axes[0] == FRAME

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**dataclasses.asdict(self), "axes": None if self.axes is None else list(self.axes)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Stream:
        """The inverse of `to_json`."""
        return cls(**{**values, "axes": None if values["axes"] is None else tuple(values["axes"])})


def find_stream(streams: Iterable[Stream], wanted: str) -> Stream:
    """The stream of this name, or the first one with this role; an InputError lists those that there are."""
    here = list(streams)
    for field in ("name", "role"):
        for stream in here:
            if getattr(stream, field) == wanted:
                return stream
    raise InputError(f"stream must be one of {', '.join(stream.name for stream in here)}; got {wanted!r}")
