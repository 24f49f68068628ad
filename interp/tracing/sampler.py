"""Follow a pipeline while it samples: the current step, the latents after each step, and its offloading hooks."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from interp.base.errors import InputError


@dataclasses.dataclass
class SchedulerHook:
    """Steps and latents of the scheduler so far."""

    keep_all: bool
    on_step: Callable[[int], None] = lambda step: None
    steps: int = 0
    """Steps taken; also the index of the current step."""
    latents: list[Tensor] = dataclasses.field(default_factory=list)
    """(batch, ...) on the CPU: after every step, or only after the last one."""

    not_finite: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    """Per position in the batch, the steps after which its latents held a NaN or an Inf."""

    def took(self, latents: Tensor) -> None:
        """Note the latents after a step."""
        if not self.keep_all:
            self.latents.clear()
        kept = latents.detach().to("cpu", torch.float32, copy=True)
        self.latents.append(kept)
        for position in (~kept.flatten(1).isfinite().all(dim=1)).nonzero().flatten().tolist():
            self.not_finite.setdefault(position, []).append(self.steps)
        self.on_step(self.steps)
        self.steps += 1


@contextlib.contextmanager
def hook_scheduler(pipe: Any, *, keep_all: bool, on_step: Callable[[int], None] = lambda step: None) -> Iterator[SchedulerHook]:
    """Hook a pipeline's `scheduler.step` inside; a scheduler that draws noise without a generator raises InputError.

    The pipeline's offloading hooks stay in place: after every picture diffusers removes them and installs new ones, which would
    wrap nnsight's forward.
    """
    scheduler = pipe.scheduler
    scheduler_hook = SchedulerHook(keep_all, on_step)
    original = scheduler.step

    @functools.wraps(original)
    def step(*args: Any, **kwargs: Any) -> Any:
        before = _random_states()
        result = original(*args, **kwargs)
        if any(not torch.equal(a, b) for a, b in zip(before, _random_states(), strict=True)):
            raise InputError(
                f"scheduler {type(scheduler).__name__} draws noise that no seed fixes (the global random state moved in its "
                "step); give model.pipe a deterministic scheduler, such as FlowMatchEulerDiscreteScheduler without "
                "stochastic_sampling"
            )
        scheduler_hook.took(result[0] if isinstance(result, tuple) else result.prev_sample)
        return result

    with patch.object(pipe, "maybe_free_model_hooks", lambda: None), patch.object(scheduler, "step", step):
        yield scheduler_hook


def _random_states() -> list[Tensor]:
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states += torch.cuda.get_rng_state_all()
    return states
