"""Branches of a guidance, its place in the sampling loop, and the base class of all methods."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from interp.base.errors import InputError
from interp.base.sites import parse_indices
from interp.interventions import Intervention
from interp.interventions.selection import Selection
from interp.models.anatomy import Anatomy

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
    """Blocks in whose attention image tokens do not see each other."""
    keeps_text: bool = False
    """Whether they still see the text there, where attention is joint."""
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
        for field in (field.name for field in dataclasses.fields(self) if field.name in ("steps", "blocks", "channels")):
            object.__setattr__(self, field, parse_indices(getattr(self, field), field))
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

    def edits(self) -> tuple[Selection, ...]:
        """The edits of its rows."""
        return ()

    def check(self, anatomy: Anatomy, steps: int) -> None:
        """Raise InputError for settings that the model or run does not support."""
        scale = getattr(self, "scale", 1.0)
        if isinstance(scale, tuple) and len(scale) != steps:
            raise InputError(f"scale of {self.name} must be one number, or one for each of {steps} steps; got {len(scale)}")
        if self.steps is not None and max(self.steps) >= steps:
            raise InputError(f"steps of {self.name} must lie in 0..{steps - 1}; got {max(self.steps)}")
        blocks, last = getattr(self, "blocks", ()), len(anatomy.blocks) - 1
        if not all(0 <= block <= last for block in blocks):
            raise InputError(f"blocks of {self.name} must lie in 0..{last}; got {list(blocks)}")
        for edit in self.edits():
            edit.check(anatomy, steps, dict.fromkeys(anatomy.stream_names, 1))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        found: dict[str, Any] = {"method": self.name}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                found[field.name] = list(value) if isinstance(value, tuple) else value
        return found

    def __add__(self, other: Any) -> Any:
        return Combined.of(self, other)

    def base(self, c: Tensor, u: Tensor, context: Context) -> Tensor:
        """The prediction to which other methods add."""
        raise NotImplementedError

    def added(self, predictions: Mapping[str, Tensor], context: Context) -> Tensor:
        """The term that it adds."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Combined:
    """base + sum of the other methods' terms; the base is the conditional prediction unless a method sets it."""

    methods: tuple[Method, ...]

    def __post_init__(self) -> None:
        bases = [method.name for method in self.methods if method.sets_base]
        if len(bases) > 1:
            raise InputError(f"guidance: {' and '.join(bases)} both set the base; use one of them")

    @classmethod
    def of(cls, *given: Any) -> Combined:
        """Combine methods and sums of methods."""
        methods: list[Method] = []
        for one in given:
            if isinstance(one, Combined):
                methods += one.methods
            elif isinstance(one, Method):
                methods.append(one)
            else:
                raise InputError(f"guidance must be a sum of interp.guidance methods, such as ClassifierFree(4); got {one!r}")
        return cls(tuple(methods))

    def __add__(self, other: Any) -> Combined:
        return Combined.of(self, other)

    def acting(self, step: int) -> list[Method]:
        """The methods that have an effect at a step."""
        return [method for method in self.methods if method.acts(step)]

    def branches(self, step: int) -> list[Branch]:
        """Branches that a step needs in addition to the conditional rows: only those of acting methods."""
        found: dict[str, Branch] = {}
        for method in self.acting(step):
            for branch in method.branches():
                found.setdefault(branch.name, branch)
        return sorted(found.values(), key=lambda branch: branch.name != UNCOND)

    def combine(self, predictions: Mapping[str, Tensor], context: Context) -> Tensor:
        """The guided prediction of the conditional rows."""
        base = predictions[COND]
        acting = self.acting(context.step)
        for method in acting:
            if method.sets_base:
                base = method.base(predictions[COND], predictions[UNCOND], context)
        for method in acting:
            if not method.sets_base:
                base = base + method.added(predictions, context)
        return base

    def check(self, anatomy: Anatomy, steps: int) -> None:
        """Raise InputError for settings that the model or run does not support."""
        for method in self.methods:
            method.check(anatomy, steps)

    def to_json(self) -> list[dict[str, Any]]:
        """As plain JSON values."""
        return [method.to_json() for method in self.methods]
