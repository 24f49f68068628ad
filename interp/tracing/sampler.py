"""Follow a pipeline while it samples: the current step, the latents after each step, and its offloading hooks."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from interp.base.errors import InputError
from interp.models.scheduling import watched_steps
from interp.tracing.steps import Moving


@dataclasses.dataclass
class SchedulerHook:
    """Steps and latents of the scheduler so far."""

    keep_all: bool
    on_step: Callable[[int], None] = lambda step: None
    steps: int = 0
    """Steps taken; also the index of the current step."""
    latents: list[Moving] = dataclasses.field(default_factory=list)
    """(batch, ...): after every step, or only after the last one."""
    finite: list[Moving] = dataclasses.field(default_factory=list)
    """(batch,), after every step."""

    def took(self, latents: Tensor) -> None:
        """Note the latents after a step, without waiting for them."""
        if not self.keep_all:
            self.latents.clear()
        self.latents.append(Moving(latents.detach()))
        self.finite.append(Moving(latents.detach().flatten(1).isfinite().all(dim=1), copy=False))
        self.on_step(self.steps)
        self.steps += 1

    def not_finite(self, position: int) -> list[int]:
        """The steps after which a row's latents held a NaN or an Inf."""
        return [step for step, finite in enumerate(self.finite) if not finite.numpy()[position]]


@contextlib.contextmanager
def hook_scheduler(pipe: Any, *, keep_all: bool, on_step: Callable[[int], None] = lambda step: None) -> Iterator[SchedulerHook]:
    """Hook a pipeline's `scheduler.step` inside; a scheduler that draws noise without a generator raises InputError.

    The pipeline's offloading hooks stay in place: after every picture diffusers removes them and installs new ones, which would
    wrap nnsight's forward.
    """
    scheduler = pipe.scheduler
    scheduler_hook = SchedulerHook(keep_all, on_step)

    def step(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
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

    with patch.object(pipe, "maybe_free_model_hooks", lambda: None), watched_steps(scheduler, step):
        yield scheduler_hook


def _random_states() -> list[Tensor]:
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states += torch.cuda.get_rng_state_all()
    return states
