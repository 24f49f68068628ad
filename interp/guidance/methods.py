"""The guidances: frozen dataclasses with the branches they need and the term they add.

One of them may set the base (`ClassifierFree`, `APG`, `CFGZeroStar`, `CFGPlusPlus`); the others add to it. They are summed with
`+`: `ClassifierFree(4) + DetailGuidance(channels=29, block=1, scale=1)` is equation 5 of Detail Guidance.

A scale is one number, or one number per step. `steps` are the steps in which a guidance acts; the default is all.
`ClassifierFree(1)` is the conditional prediction; the papers' lambda is scale - 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from interp.base.errors import InputError
from interp.base.streams import GENERATED
from interp.guidance import equations, presets
from interp.guidance.method import COND, UNCOND, Branch, Context, Method, Number
from interp.interventions.edits import Scale, SteerFrames, read_sizes
from interp.interventions.selection import Selection


@dataclasses.dataclass(frozen=True)
class _WithUncond(Method):
    """A guidance of conditional and unconditional predictions."""

    sets_base: ClassVar[bool] = True
    neutral: ClassVar[float] = 1.0

    def branches(self) -> tuple[Branch, ...]:
        """The unconditional rows."""
        return (Branch(UNCOND),)


@dataclasses.dataclass(frozen=True)
class ClassifierFree(_WithUncond):
    """Classifier-free guidance, u + scale (c - u); scale 0 is unconditional."""

    scale: Number
    name: ClassVar[str] = "cfg"

    def base(self, c: Tensor, u: Tensor, context: Context) -> Tensor:
        """u + scale (c - u)."""
        return equations.classifier_free(c, u, self.scale_at(context.step))


@dataclasses.dataclass(frozen=True)
class APG(_WithUncond):
    """Adaptive projected guidance (arXiv 2410.02416), on the model's own prediction as diffusers does (the paper: on x0)."""

    scale: Number
    eta: float = 0.0
    """Factor of the component parallel to the conditional prediction."""
    limit: float = 15.0
    """Largest norm of the difference; 0 is no limit."""
    momentum: float = -0.5
    name: ClassVar[str] = "apg"

    def base(self, c: Tensor, u: Tensor, context: Context) -> Tensor:
        """c + (scale - 1) times the projected difference."""
        average = c - u
        if self.momentum:
            before = context.memory.get("apg")
            average = average if before is None else average + self.momentum * before
            context.memory["apg"] = average
        return equations.projected(c, u, self.scale_at(context.step), self.eta, self.limit, average)


@dataclasses.dataclass(frozen=True)
class CFGZeroStar(_WithUncond):
    """CFG-Zero* (arXiv 2503.18886): the unconditional prediction is fitted to the conditional one; zero in the first steps."""

    scale: Number
    zero_steps: int = 1
    name: ClassVar[str] = "cfg0"

    def acts(self, step: int) -> bool:
        """Whether it has an effect: at scale 1, its first steps are still zero."""
        return super().acts(step) or (step < self.zero_steps and (self.steps is None or step in self.steps))

    def base(self, c: Tensor, u: Tensor, context: Context) -> Tensor:
        """s u + scale (c - s u); zero in the first steps."""
        if context.step < self.zero_steps:
            return torch.zeros_like(c)
        return equations.zero_star(c, u, self.scale_at(context.step))


@dataclasses.dataclass(frozen=True)
class CFGPlusPlus(_WithUncond):
    """CFG++ (arXiv 2406.08070), scale in 0..1. It changes the noise of a step, written here as an effective prediction."""

    scale: Number
    name: ClassVar[str] = "cfgpp"
    neutral: ClassVar[float] = math.inf  # no neutral scale: at scale 1 the noise is still the unconditional one

    def __post_init__(self) -> None:
        super().__post_init__()
        values = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if not all(0 <= float(value) <= 1 for value in values):
            raise InputError(f"scale of cfgpp must lie in 0..1 (it interpolates); got {self.scale}")

    def base(self, c: Tensor, u: Tensor, context: Context) -> Tensor:
        """The prediction whose plain step is CFG++'s."""
        rule = equations.plus_plus_velocity if context.velocity else equations.plus_plus_noise
        return rule(c, u, self.scale_at(context.step), context.sigma, context.next_sigma)


@dataclasses.dataclass(frozen=True)
class Amplify(Method):
    """A baseline without guidance: multiply the channels by `scale` in every row."""

    channels: Any
    block: int
    scale: Number
    stream: str = GENERATED
    name: ClassVar[str] = "amplify"
    neutral: ClassVar[float] = 1.0

    def edit_at(self, step: int) -> Selection:
        """The edit of a step."""
        return Scale(self.scale_at(step), channels=self.channels, blocks=self.block, stream=self.stream)

    def edits(self) -> tuple[Selection, ...]:
        """The edit of the first step: all steps' have the same place."""
        return (self.edit_at(0),)

    def added(self, predictions: Mapping[str, Tensor], context: Context) -> Tensor:
        """Zero: it acts inside the model."""
        return torch.zeros_like(predictions[COND])


@dataclasses.dataclass(frozen=True)
class SteeredFrames(Amplify):
    """STAS (arXiv 2603.17825; not from our papers): channels steered at a video's first frame and at the ends of the others, in
    every row, without further rows. `SteerFrames` says what of it is our reading; `scale` multiplies the maximum.
    """

    sizes: Any = ()
    """Tokens along the stream's axes: (latent frames, rows, columns), or text such as 21x30x52."""
    source: str = presets.STAS
    """The source of the settings."""
    name: ClassVar[str] = "stas"
    neutral: ClassVar[float] = math.inf  # at scale 1 the tokens are still set to the maximum

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sizes", read_sizes(self.sizes))

    def edit_at(self, step: int) -> Selection:
        """The edit of a step."""
        return self._edit(self.scale_at(step))

    def edits(self) -> tuple[Selection, ...]:
        """An edit at their place."""
        return (self._edit(1.0),)

    def _edit(self, scale: float) -> SteerFrames:
        return SteerFrames(scale, self.sizes, channels=self.channels, blocks=self.block, stream=self.stream)

    @classmethod
    def auto(cls, run: Any, *, scale: Number = 1.0, **changes: Any) -> SteeredFrames:
        """Channels, block and sizes from a traced run of a video model. The scale is ours: the abstract has none."""
        return cls(**{"scale": scale, **presets.steered_by(run), **changes})
