"""Branches of a guidance, its place in the sampling loop, and the base class of all methods."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from interp.errors import InputError
from interp.interventions import Intervention
from interp.models.anatomy import Anatomy
from interp.sites import parse_indices

Number = float | Sequence[float]
COND, UNCOND = "cond", "uncond"


@dataclasses.dataclass(frozen=True)
class Branch:
    """Rows that a guidance needs in addition to the conditional ones."""

    name: str
    source: str = COND
    """The rows that it copies."""
    edits: tuple[Intervention, ...] = ()
    skips: tuple[int, ...] = ()
    """Blocks that return their input."""
    identity: tuple[int, ...] = ()
    """Blocks whose attention gives each image token its own value."""
    model: Any = None
    """Another model's transformer."""


@dataclasses.dataclass
class Context:
    """The place in the sampling loop where predictions are combined."""

    step: int
    sigma: float
    next_sigma: float
    velocity: bool
    memory: dict[str, Tensor]
    """State that a method keeps between steps (APG's momentum)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """Base class of guidances."""

    steps: Any = None
    neutral: ClassVar[float] = 0.0
    """The scale without effect."""
    sets_base: ClassVar[bool] = False
    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", parse_indices(self.steps, "steps"))
        scale = getattr(self, "scale", None)
        if scale is None:
            return
        values = list(scale) if isinstance(scale, Sequence) and not isinstance(scale, str) else [scale]
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"scale of {self.name} must be a finite number, or one for every step; got {value!r}")
        object.__setattr__(self, "scale", tuple(float(value) for value in values) if len(values) > 1 else float(values[0]))

    def scale_at(self, step: int) -> float:
        """The scale at a step; the neutral one outside the window."""
        if self.steps is not None and step not in self.steps:
            return self.neutral
        scale: Any = getattr(self, "scale", 1.0)
        return float(scale[step] if isinstance(scale, tuple) else scale)

    def acts(self, step: int) -> bool:
        """Whether it has an effect at a step."""
        return self.scale_at(step) != self.neutral

    def branches(self) -> tuple[Branch, ...]:
        """Branches that it needs in addition to the conditional rows."""
        return ()

    def check(self, anatomy: Anatomy, steps: int) -> None:
        """Raise InputError for settings that the model or run does not support."""
        scale = getattr(self, "scale", 1.0)
        if isinstance(scale, tuple) and len(scale) != steps:
            raise InputError(f"scale of {self.name} must be one number, or one for each of {steps} steps; got {len(scale)}")
        if self.steps is not None and max(self.steps) >= steps:
            raise InputError(f"steps of {self.name} must lie in 0..{steps - 1}; got {max(self.steps)}")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        found: dict[str, Any] = {"method": self.name}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                found[field.name] = list(value) if isinstance(value, tuple) else value
        return found

    def __add__(self, other: Any) -> Any:
        from interp.guidance.combine import Combined

        return Combined.of(self, other)

    def base(self, c: Tensor, u: Tensor, context: Context) -> Tensor:
        """The prediction to which other methods add."""
        raise NotImplementedError

    def added(self, predictions: Mapping[str, Tensor], context: Context) -> Tensor:
        """The term that it adds."""
        raise NotImplementedError
