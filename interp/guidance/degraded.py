"""Guidances away from a prediction that is made worse: by edits of channels, skipped blocks, attention, or another model.

They add scale (good - bad) to the base; see `methods`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from interp.base.errors import InputError
from interp.base.sites import check_choice
from interp.base.streams import ALL, GENERATED
from interp.guidance import equations, presets
from interp.guidance.method import COND, UNCOND, Branch, Context, Method, Number
from interp.interventions.edits import Scale, SetMean, Zero
from interp.interventions.selection import Selection
from interp.models.anatomy import Anatomy

KEPT, CUT = "kept", "cut"


@dataclasses.dataclass(frozen=True)
class _AwayFrom(Method):
    """Away from rows that are made worse: scale (good - bad), added to the base."""

    def added(self, predictions: Mapping[str, Tensor], context: Context) -> Tensor:
        """scale (good - bad)."""
        bad = self.branches()[-1]
        return equations.away(predictions[bad.source], predictions[bad.name], self.scale_at(context.step))


@dataclasses.dataclass(frozen=True)
class DetailGuidance(_AwayFrom):
    """Detail Guidance (arXiv 2510.11538, 4.3): away from a model with massive channels disrupted at block m's output.

    `block` is m, counted from 0 over all blocks: the output of block m is edited. `edit` is "zero", "mean" (over tokens) or a
    factor. `of` selects the degraded rows: cond, or uncond (the paper's "Uncond" setting, with `ClassifierFree(0)`).
    """

    channels: Any
    block: int
    scale: Number
    stream: str = GENERATED
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
        wanted = anatomy.stream_names if self.stream == ALL else (anatomy.stream(self.stream).name,)
        if not any(stream in hidden for stream in wanted):
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
    """Perturbed-attention guidance (arXiv 2403.17377): away from a model in which image tokens attend only to themselves.

    The paper has self-attention alone. In joint attention `text` says whether image tokens still attend to text: "kept", as
    diffusers' PAG pipelines do, or "cut".
    """

    blocks: Any
    scale: Number
    text: str = KEPT
    name: ClassVar[str] = "pag"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks is None:
            raise InputError("pag needs blocks, such as blocks=[7]; got None")
        check_choice("text", self.text, (KEPT, CUT))

    def branches(self) -> tuple[Branch, ...]:
        """The perturbed rows."""
        kept = self.text == KEPT
        name = f"pag.{self.blocks}" if kept else f"pag.{self.blocks}.{CUT}"
        return (Branch(name, identity=self.blocks, keeps_text=kept),)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; without `text` the text is cut, as in stores before there was a choice."""
        found = super().to_json()
        return found if self.text == KEPT else {key: value for key, value in found.items() if key != "text"}

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
        """As plain JSON values: the model by its name, weights and state."""
        identified = {key: value for key, value in self.model.identify().items() if key != "scheduler"}
        found = {"method": self.name, "model": self.model.name, **identified, "scale": self.scale}
        return found if self.steps is None else {**found, "steps": list(self.steps)}
