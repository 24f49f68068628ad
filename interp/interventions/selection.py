"""The protocol of an edit, its selection (channels x blocks x stream x steps x tokens of a site), and the arrays it inserts."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from interp.base.errors import InputError
from interp.base.sites import GATES, MODULATION_KINDS, Site, parse_indices
from interp.base.streams import ALL, CONDITIONING, GENERATED, find_stream
from interp.models.anatomy import Anatomy

if TYPE_CHECKING:
    import xarray as xr

Indices = Sequence[int] | str | int | None
PLACES = ("hidden", *(f"{kind}.{gate}" for kind in MODULATION_KINDS for gate in GATES))
AXES = {"step": "steps", "block": "blocks", "token": "tokens", "channel": "channels"}


class Intervention(Protocol):
    """An edit of one or more sites. It never changes its input tensors in place."""

    def touches(self, site: Site, step: int) -> bool:
        """Whether this site is edited at this step."""

    def apply(self, site: Site, step: int, value: Tensor) -> Tensor:
        """The edited value, of the same shape: (batch, token, channel) for hidden, (batch, channel) for alpha."""

    def to_json(self) -> dict[str, Any]:
        """The edit as plain JSON values, for the plan."""


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class Selection(ABC):
    """The selection of an edit. `None` means all; indices may be text, such as "0,6,12-20".

    `at` is `hidden` (a block's output) or a gate such as `alpha.mlp` (also `shift`, `scale`); `tokens` are positions within the
    stream. `stream` is the name of a stream, such as image or text, a role ("generated", the default), or "both" for all. A
    gate that two streams share (Flux's single blocks) is edited through the generated one.
    """

    channels: Indices
    blocks: Indices
    stream: str = GENERATED
    steps: Indices = None
    tokens: Indices = None
    at: str = "hidden"

    def __post_init__(self) -> None:
        for field in ("channels", "blocks", "steps", "tokens"):
            indices = parse_indices(getattr(self, field), field)
            if indices is not None and min(indices) < 0:
                raise InputError(f"{field} of an edit must be 0 or more (count from the front); got {min(indices)}")
            if indices is not None and len(set(indices)) != len(indices):
                raise InputError(f"{field} must each be given once; got {list(indices)}")
            object.__setattr__(self, field, indices)
        if not isinstance(self.stream, str) or not self.stream.isidentifier():
            raise InputError(f"stream must be the name of a stream, such as image or text, or both; got {self.stream!r}")
        if self.at not in PLACES:
            raise InputError(f"at must be hidden, or a gate such as alpha.mlp; got {self.at!r}")
        if self.tokens is not None and not self.is_hidden:
            raise InputError(f"tokens: {self.at} has no tokens; leave them out")
        for own in dataclasses.fields(self):
            if own.type == "float":
                check_finite(own.name, getattr(self, own.name))

    @property
    def is_hidden(self) -> bool:
        """Whether it edits hidden states, not gates."""
        return self.at == "hidden"

    @abstractmethod
    def change(self, values: Tensor, step: int, block: int) -> Tensor:
        """The edited values of the selection: (batch, token, channel), or (batch, channel) of a gate."""

    def touches(self, site: Site, step: int) -> bool:
        """Whether this site is edited at this step."""
        if self.stream in (GENERATED, CONDITIONING):  # a reference is named so
            raise AssertionError(f"{self!r} selects a stream by its role: `resolved` gives it a name")
        here = site.kind if site.gate is None else f"{site.kind}.{site.gate}"
        return (
            here == self.at
            and self.stream in (site.stream, ALL)
            and _among(site.block, self.blocks)
            and _among(step, self.steps)
        )

    def apply(self, site: Site, step: int, value: Tensor) -> Tensor:
        """The edited value; the input is unchanged."""
        if self.channels is None and self.tokens is None:
            return self.change(value, step, site.block).clone()
        edited, place = value.clone(), self.place(value)
        edited[place] = self.change(value[place], step, site.block)
        return edited

    def place(self, value: Tensor) -> tuple[Any, ...]:
        """An index of the selected tokens and channels in (batch, [token,] channel), whose result keeps all axes."""
        given = (self.tokens, self.channels)
        tokens, channels = (slice(None) if one is None else torch.tensor(one, device=value.device) for one in given)
        if value.ndim == 2:
            return (slice(None), channels)
        if isinstance(tokens, Tensor) and isinstance(channels, Tensor):
            return (slice(None), tokens[:, None], channels[None])
        return (slice(None), tokens, channels)

    def check(self, anatomy: Anatomy, steps: int, tokens: Mapping[str, int]) -> None:
        """Raise InputError for indices that the model or run does not have; `tokens` of each stream."""
        for field, size in (("blocks", len(anatomy.blocks)), ("steps", steps)):
            _within(field, getattr(self, field), size)
        for stream in anatomy.streams if self.stream == ALL else [anatomy.stream(self.stream)]:
            _within("channels", self.channels, stream.width)
            _within(f"tokens of the {stream.name} stream", self.tokens, tokens[stream.name])

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; arrays as their source and digest."""
        found: dict[str, Any] = {"edit": type(self).__name__}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and hasattr(value, "to_json"):
                value = value.to_json()
            found[field.name] = list(value) if isinstance(value, tuple) else value
        return found

    def __repr__(self) -> str:
        positional, named = [], []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not field.kw_only and field.default is dataclasses.MISSING:
                positional.append(repr(value))
            elif value != field.default:
                named.append(f"{field.name}={list(value) if isinstance(value, tuple) else value!r}")
        return f"{type(self).__name__}({', '.join(positional + named)})"


def resolved(edit: Any, anatomy: Anatomy) -> Any:
    """The edit with the name of its stream in place of a role; an InputError if the model has no such stream."""
    if not isinstance(edit, Selection) or edit.stream == ALL:
        return edit
    stream = find_stream(anatomy.streams, edit.stream).name
    return edit if stream == edit.stream else dataclasses.replace(edit, stream=stream)


def _among(index: int, wanted: Any) -> bool:
    return wanted is None or index in wanted


def check_finite(field: str, value: Any) -> None:
    """Raise InputError unless the value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{field} must be a finite number; got {value!r}")


def _within(field: str, wanted: Any, size: int) -> None:
    if wanted is not None and max(wanted) >= size:
        raise InputError(f"{field} must lie in 0..{size - 1}; got {max(wanted)}")


@dataclasses.dataclass(frozen=True, eq=False)
class Values:
    """An array with named axes among step, block, token, channel, and the coordinates of each."""

    array: Any
    """numpy, float32."""
    coordinates: dict[str, tuple[int, ...]]
    source: str
    """The source, as text."""
    digest: str = ""

    def __post_init__(self) -> None:
        array = np.ascontiguousarray(self.array, dtype=np.float32)
        expected = tuple(len(values) for values in self.coordinates.values())
        if array.shape != expected:
            axes = ", ".join(self.coordinates)
            raise InputError(f"values must be ({axes}) = {expected}; got shape {array.shape}")
        if not np.isfinite(array).all():
            raise InputError(f"values from {self.source} contain NaN or Inf; select only blocks and streams that exist")
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "digest", hashlib.sha256(array.tobytes()).hexdigest()[:16])

    @classmethod
    def of(cls, data: xr.DataArray, source: str) -> Values:
        """From a DataArray with axes among step, block, token, channel, such as one prompt of a run's hidden states."""
        wanted = [axis for axis in AXES if axis in data.dims]
        extra = [str(axis) for axis in data.dims if axis not in wanted]
        if extra:
            raise InputError(f"values must have axes among step, block, token, channel; select one {extra[0]} first")
        ordered = data.transpose(*wanted)
        coordinates = {axis: tuple(int(v) for v in ordered[axis].to_numpy()) for axis in wanted}
        return cls(ordered.to_numpy(), coordinates, source)

    def check(self, edit: Any, axes: Sequence[str]) -> None:
        """Check that the values hold every index that the edit selects."""
        missing = [axis for axis in axes if axis not in self.coordinates and axis != "step"]
        extra = [axis for axis in self.coordinates if axis not in axes]
        if missing or extra:
            raise InputError(
                f"values of {type(edit).__name__} must be ({', '.join(axes)}); got ({', '.join(self.coordinates)})"
            )
        for axis, field in AXES.items():
            selected = getattr(edit, field)
            lacking = sorted(set(selected or ()) - set(self.coordinates.get(axis, selected or ())))
            if lacking:
                raise InputError(f"values from {self.source} have no {axis} {lacking[0]}, which the edit's {field} select")

    def at(self, edit: Any, step: int, block: int, like: Tensor) -> Tensor:
        """The values for one step and block, ([token,] channel), with the device and dtype of `like`."""
        place: list[Sequence[int]] = []
        here = {"step": step, "block": block}
        for axis, stored in self.coordinates.items():
            if axis in here and here[axis] not in stored:
                field = AXES[axis]
                raise InputError(f"values from {self.source} have no {axis} {here[axis]}; select {field} that they have")
            selected = (here[axis],) if axis in here else getattr(edit, AXES[axis])
            place.append(range(len(stored)) if selected is None else [stored.index(index) for index in selected])
        single = tuple(number for number, axis in enumerate(self.coordinates) if axis in here)
        chosen = self.array[np.ix_(*place)].squeeze(single)
        return torch.from_numpy(np.ascontiguousarray(chosen)).to(like.device, like.dtype)

    def to_json(self) -> dict[str, Any]:
        """Source, digest and sizes, without the array."""
        return {"source": self.source, "digest": self.digest, "sizes": {axis: len(v) for axis, v in self.coordinates.items()}}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Values) and self.digest == other.digest and self.coordinates == other.coordinates

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{axis} {len(values)}" for axis, values in self.coordinates.items())
        return f"<values of {self.source}: {sizes}>"
