"""Swap a model's conditioning: timestep, pooled text and text tokens, alone or together.

    SwapConditioning.of(model, prompt="a blue star", pooled=True)                 the pooled text alone
    SwapConditioning.of(model, prompt="a blue star", pooled=True, tokens=True)    all of the text
    SwapConditioning.of(model, timestep=500.0, steps="10-19")                     the timestep the model receives

The latents are unchanged: another timestep does not re-noise them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from interp.base.errors import InputError
from interp.base.sites import parse_indices
from interp.models.anatomy import in_place_of


class ArgumentEdit:
    """An edit of the transformer's or of modules' arguments: it touches no site."""

    steps: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", parse_indices(self.steps, "steps"))

    def touches(self, site: Any, step: int) -> bool:
        """Always False: it acts on arguments."""
        return False

    def apply(self, site: Any, step: int, value: Tensor) -> Tensor:
        """Nothing, likewise."""
        return value

    def swaps(self, step: int) -> bool:
        """Whether the call of a step is changed."""
        return self.steps is None or step in self.steps


@dataclasses.dataclass(frozen=True, eq=False)
class SwapConditioning(ArgumentEdit):
    """Replace arguments of the transformer in every call of the selected steps; created by `SwapConditioning.of`."""

    arguments: Mapping[str, Tensor]
    """Per argument of the transformer, (1, ...): one value for every row."""
    said: Mapping[str, Any]
    """The arguments of `of`, as plain JSON values."""
    steps: Any = None

    @classmethod
    def of(
        cls,
        model: Any,
        *,
        prompt: str | None = None,
        pooled: bool = False,
        tokens: bool = False,
        timestep: float | None = None,
        steps: Any = None,
        settings: dict[str, Any] | None = None,
    ) -> SwapConditioning:
        """Encode the other prompt with the model's own encoders; `timestep` is in the scheduler's units, 0..1000."""
        spec, anatomy = model.loaded.spec, model.anatomy
        if (prompt is None) == (pooled or tokens):
            raise InputError("SwapConditioning: prompt needs pooled=True or tokens=True, and they need a prompt; give both")
        if prompt is None and timestep is None:
            raise InputError("SwapConditioning: give a prompt with pooled=True or tokens=True, or a timestep, or both")
        if timestep is not None and not (math.isfinite(timestep) and 0 <= timestep <= 1000):
            raise InputError(f"timestep must lie in 0..1000, the scheduler's units; got {timestep!r}")
        conditioning = anatomy.conditioning
        if timestep is not None and not anatomy.timestep.alone:
            raise InputError(f"timestep: {model.name} receives two timesteps; one alone cannot be swapped; leave it out")
        chosen, found = model.settings(settings), {}
        with torch.no_grad():
            if pooled:
                if conditioning is None or "text" not in conditioning.players or spec.conditions is None:
                    raise InputError(f"pooled: {model.name} has no pooled text; use tokens=True")
                if not conditioning.pooled:
                    raise InputError(f"pooled: the gates of {model.name} get their text from its tokens; use tokens=True")
                text = conditioning.players["text"]
                found[text] = spec.conditions(model.pipe, [prompt], chosen)[text]
            if tokens:
                if spec.text_states is None:
                    raise InputError(f"tokens: {model.name} has no text tokens; use pooled=True for its class label")
                found |= spec.text_states(model.pipe, [prompt], chosen)
        if timestep is not None:
            found[anatomy.timestep.name] = torch.tensor([anatomy.timestep.given(timestep)], dtype=torch.float32)
        said = {"prompt": prompt, "pooled": pooled, "tokens": tokens, "timestep": timestep}
        return cls(found, said, steps)

    def swapped(self, given: Mapping[str, Any]) -> dict[str, Tensor]:
        """The new arguments of one call, for all its rows, with the device and dtype of the old ones."""
        found = {}
        for name, value in self.arguments.items():
            old = given[name]
            found[name] = in_place_of(value, old)
            if not isinstance(old, list) and found[name].shape != old.shape:
                raise InputError(
                    f"SwapConditioning: {name} is {tuple(old.shape[1:])} in this run; got {tuple(value.shape[1:])}"
                )
        return found

    @property
    def digest(self) -> str:
        """Digest of the replacing arrays."""
        parts = b"".join(value.detach().float().cpu().numpy().tobytes() for value in self.arguments.values())
        return hashlib.sha256(parts).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; the arrays as their digest."""
        steps = None if self.steps is None else list(self.steps)
        return {"edit": "SwapConditioning", **self.said, "steps": steps, "digest": self.digest}

    def __repr__(self) -> str:
        shown = {name: value for name, value in self.said.items() if value not in (None, False)}
        shown |= {} if self.steps is None else {"steps": list(self.steps)}
        return f"SwapConditioning({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


@dataclasses.dataclass(frozen=True, eq=False)
class ReplaceLater(ArgumentEdit):
    """Replace the conditioning that enters blocks after `block`, and modules after all blocks, with another run's. Used by
    experiments, which have the other run.
    """

    block: int
    values: Mapping[tuple[int, str, str], Tensor]
    """By (step, path of the module, argument): (1, ...)."""
    source: str
    """The other run, as text."""
    steps: Any = None

    def replaced(self, step: int, path: str, argument: str, value: Tensor) -> Tensor | None:
        """The other run's value of a module's argument, for one row; `None` where it is not replaced."""
        found = self.values.get((step, path, argument)) if self.swaps(step) else None
        return None if found is None else found.to(value.device, value.dtype)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; the arrays as their source."""
        steps = None if self.steps is None else list(self.steps)
        return {"edit": "ReplaceLater", "after": self.block, "source": self.source, "steps": steps}
