"""Follow a pipeline while it samples: the current step, the latents after each step, and its offloading hooks."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

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
def hook_scheduler(
    scheduler: Any, *, keep_all: bool, on_step: Callable[[int], None] = lambda step: None
) -> Iterator[SchedulerHook]:
    """Hook `scheduler.step` inside; a scheduler that draws noise without a generator raises InputError."""
    scheduler_hook = SchedulerHook(keep_all, on_step)
    original, shadowed = scheduler.step, scheduler.__dict__.get("step")

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

    scheduler.step = step
    try:
        yield scheduler_hook
    finally:
        del scheduler.__dict__["step"]
        if shadowed is not None:
            scheduler.step = shadowed


@contextlib.contextmanager
def keep_offload_hooks(pipe: Any) -> Iterator[None]:
    """Leave a pipeline's offloading hooks in place inside.

    After every picture diffusers removes them and installs new ones, which would wrap nnsight's forward.
    """
    pipe.maybe_free_model_hooks = lambda: None
    try:
        yield
    finally:
        del pipe.__dict__["maybe_free_model_hooks"]


def _random_states() -> list[Tensor]:
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states += torch.cuda.get_rng_state_all()
    return states
