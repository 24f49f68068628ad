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
from interp.guidance import equations, presets
from interp.guidance.method import COND, UNCOND, Branch, Context, Method, Number
from interp.interventions.edits import Scale, SetMean, Zero
from interp.interventions.selection import Selection
from interp.models.anatomy import Anatomy


@dataclasses.dataclass(frozen=True)
class _WithUncond(Method):
    """A guidance of conditional and unconditional predictions."""

    sets_base: ClassVar[bool] = True
    neutral: ClassVar[float] = 1.0

    def branches(self) -> tuple[Branch, ...]:
        """The unconditional rows."""
        return (Branch(UNCOND),)


@dataclasses.dataclass(frozen=True)
class _AwayFrom(Method):
    """Away from rows that are made worse: scale (good - bad), added to the base."""

    def added(self, predictions: Mapping[str, Tensor], context: Context) -> Tensor:
        """scale (good - bad)."""
        bad = self.branches()[-1]
        return equations.away(predictions[bad.source], predictions[bad.name], self.scale_at(context.step))


@dataclasses.dataclass(frozen=True)
class ClassifierFree(_WithUncond):
    """Classifier-free guidance, u + scale (c - u); scale 0 is unconditional."""

    scale: Number
    name: ClassVar[str] = "cfg"

    def base(self, c: Tensor, u: Tensor, context: Context) -> Tensor:
        """u + scale (c - u)."""
        return equations.classifier_free(c, u, self.scale_at(context.step))


@dataclasses.dataclass(frozen=True)
class DetailGuidance(_AwayFrom):
    """Detail Guidance (arXiv 2510.11538, 4.3): away from a model with massive channels disrupted at block m's output.

    `block` is m, counted from 0 over all blocks: the output of block m is edited. `edit` is "zero", "mean" (over tokens) or a
    factor. `of` selects the degraded rows: cond, or uncond (the paper's "Uncond" setting, with `ClassifierFree(0)`).
    """

    channels: Any
    block: int
    scale: Number
    stream: str = "image"
    edit: str | float = "zero"
    of: str = COND
    source: str = ""
    """The source of the settings."""
    name: ClassVar[str] = "dg"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of not in (COND, UNCOND):
            raise InputError(f"of must be {COND} or {UNCOND}; got {self.of!r}")
        self.edits()

    def edits(self) -> tuple[Selection, ...]:
        """The disruption of the degraded rows."""
        where: dict[str, Any] = {"channels": self.channels, "blocks": self.block, "stream": self.stream}
        if self.edit == "zero":
            return (Zero(**where),)
        if self.edit == "mean":
            return (SetMean(**where),)
        if isinstance(self.edit, str):
            raise InputError(f"edit must be zero, mean or a factor; got {self.edit!r}")
        return (Scale(self.edit, **where),)

    def branches(self) -> tuple[Branch, ...]:
        """The degraded rows."""
        name = f"dg.{self.of}.{self.block}.{self.stream}.{self.edit}.{self.channels}"
        degraded = Branch(name, self.of, self.edits())
        return (Branch(UNCOND), degraded) if self.of == UNCOND else (degraded,)

    def check(self, anatomy: Anatomy, steps: int) -> None:
        """Channels, block and stream must be the model's."""
        super().check(anatomy, steps)
        hidden = anatomy.blocks[self.block].hidden
        if not any(stream in hidden for stream in anatomy.streams if self.stream in (stream, "both")):
            raise InputError(f"stream: block {self.block} has no {self.stream} state; choose another block")

    @classmethod
    def preset(cls, name: str, *, run: Any = None, **changes: Any) -> DetailGuidance:
        """The paper's settings for a model, w without CFG; `changes` are further fields. With a traced `run` of the model, warn
        if the channels are not massive in it.
        """
        made = cls(**presets.settings(name, changes))
        if run is not None:
            presets.check_run([made], run)
        return made

    @classmethod
    def auto(cls, run: Any, *, scale: Number = 1.0, **changes: Any) -> DetailGuidance:
        """Channels and block for any model from a traced run (`interp.guidance.presets.chosen_by`)."""
        return cls(**{"scale": scale, **presets.chosen_by(run), **changes})


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
class SkipLayer(_AwayFrom):
    """Skip-layer guidance (Stability AI's SD3.5 code; STG, arXiv 2411.18664): away from a model with blocks skipped.

    `part` is "block" (the block returns its input) or "attn" (STG's variant: its image attention adds nothing).
    """

    blocks: Any
    scale: Number
    part: str = "block"
    name: ClassVar[str] = "slg"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks is None or self.part not in ("block", "attn"):
            raise InputError(f"slg needs blocks, and part block or attn; got {self.blocks!r} and {self.part!r}")

    def branches(self) -> tuple[Branch, ...]:
        """The rows that skip."""
        name = f"slg.{self.part}.{self.blocks}"
        if self.part == "attn":
            return (Branch(name, edits=(Scale(0.0, channels=None, blocks=self.blocks, at="alpha.attn"),)),)
        return (Branch(name, skips=self.blocks),)


@dataclasses.dataclass(frozen=True)
class PerturbedAttention(_AwayFrom):
    """Perturbed-attention guidance (arXiv 2403.17377): away from a model in which image tokens attend only to themselves."""

    blocks: Any
    scale: Number
    name: ClassVar[str] = "pag"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks is None:
            raise InputError("pag needs blocks, such as blocks=[7]; got None")

    def branches(self) -> tuple[Branch, ...]:
        """The perturbed rows."""
        return (Branch(f"pag.{self.blocks}", identity=self.blocks),)

    def check(self, anatomy: Anatomy, steps: int) -> None:
        """Blocks must have self-attention over image tokens."""
        super().check(anatomy, steps)
        without = [block for block in self.blocks if anatomy.blocks[block].attention is None]
        if without:
            raise InputError(f"pag: the attention of block {without[0]} cannot be perturbed; choose blocks that have one")


@dataclasses.dataclass(frozen=True)
class AutoGuidance(_AwayFrom):
    """Autoguidance (arXiv 2406.02507): away from a worse model of the same class, c + scale (c - bad); its w is scale + 1."""

    model: Any
    """An `interp.Model` whose transformer takes the same arguments, such as an earlier checkpoint."""
    scale: Number
    name: ClassVar[str] = "auto"

    def branches(self) -> tuple[Branch, ...]:
        """The other model's rows."""
        return (Branch("auto", model=self.model.pipe.transformer),)

    def check(self, anatomy: Anatomy, steps: int) -> None:
        """The other model must be of the same class."""
        super().check(anatomy, steps)
        if self.model.anatomy.model_class != anatomy.model_class:
            raise InputError(f"auto: the other model is a {self.model.anatomy.model_class}, this one a {anatomy.model_class}")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values: the model by its name and weights."""
        from interp.models.identity import fingerprint

        found = {"method": self.name, "model": self.model.name, "weights": fingerprint(self.model.pipe), "scale": self.scale}
        return found if self.steps is None else {**found, "steps": list(self.steps)}


@dataclasses.dataclass(frozen=True)
class Amplify(Method):
    """A baseline without guidance: multiply the channels by `scale` in every row."""

    channels: Any
    block: int
    scale: Number
    stream: str = "image"
    name: ClassVar[str] = "amplify"
    neutral: ClassVar[float] = 1.0

    def edit_at(self, step: int) -> Scale:
        """The edit of a step."""
        return Scale(self.scale_at(step), channels=self.channels, blocks=self.block, stream=self.stream)

    def edits(self) -> tuple[Selection, ...]:
        """The edit of the first step: all steps' have the same place."""
        return (self.edit_at(0),)

    def added(self, predictions: Mapping[str, Tensor], context: Context) -> Tensor:
        """Zero: it acts inside the model."""
        return torch.zeros_like(predictions[COND])
