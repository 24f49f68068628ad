"""Arrays that edits insert, identified by source and digest."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.base.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


AXES = {"step": "steps", "block": "blocks", "token": "tokens", "channel": "channels"}


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
