"""A pipeline may copy its scheduler for a second stream: steps of the copy are its own, and nobody watches them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from interp.models.scheduling import watched_steps


def test_a_copied_scheduler_steps_alone() -> None:
    scheduler, seen = FlowMatchEulerDiscreteScheduler(), []
    scheduler.set_timesteps(4)

    def around(step: Callable[..., Any], *given: Any, **named: Any) -> Any:
        seen.append(1)
        return step(*given, **named)

    with watched_steps(scheduler, around), watched_steps(scheduler, around):
        copied = copy.deepcopy(scheduler)
        assert "generator" in inspect.signature(scheduler.step).parameters
        for one in (copied, copied, scheduler):
            one.step(torch.ones(1), one.timesteps[0], torch.ones(1))
    assert len(seen) == 2
    assert (scheduler.step_index, copied.step_index) == (1, 2)
    assert "step" not in vars(scheduler)
