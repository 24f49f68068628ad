"""The noise levels of a pipeline's run: what it passes to its scheduler, and what the scheduler makes of it."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from interp.base.errors import InputError

Array = np.ndarray[Any, Any]
FLOW_TIMESTEPS = 1000  # from a rectified flow's data to its noise


def dynamic_shift(pipe: Any, tokens: int, steps: int) -> float:
    """Resolution-dependent shift mu, linear in the number of tokens (Stable Diffusion 3, arXiv 2403.03206)."""
    config = pipe.scheduler.config
    first, last = config.base_image_seq_len, config.max_image_seq_len
    slope = (config.max_shift - config.base_shift) / (last - first)
    return float(config.base_shift + slope * (tokens - first))


@dataclasses.dataclass(frozen=True)
class Levels:
    """How a pipeline sets the noise levels of its run."""

    sigmas: Callable[[int], Array] | None = None
    """(steps) -> the noise levels that it passes to its scheduler, where it does."""
    sized: Callable[[Any, int, int], Array] | None = None
    """(pipe, generated tokens, steps) -> the same, where they depend on the picture's size."""
    timesteps: Callable[[int], Array] | None = None
    """(steps) -> the timesteps that it passes with them, where it does: the scheduler then shifts the levels alone."""
    leaves_flow: bool = False
    """Whether it passes no noise levels to a scheduler with `use_flow_sigmas`, which makes its own."""
    shift: Callable[[Any, int, int], float] = dynamic_shift
    """(pipe, generated tokens, steps) -> the shift of the levels, for a scheduler with dynamic shifting."""
    arguments: Callable[[int], dict[str, Any]] = lambda steps: {}
    """(steps) -> further arguments of the pipeline; its scheduler receives those that it takes."""
    flow: Callable[[Any], Array] | None = None
    """(scheduler) -> the levels of the rectified flow to which the pipeline converts timesteps and latents, if it does."""
    flow_size: Callable[[Any], float] = lambda pipe: 1.0
    """(pipe) -> by how much the scheduler's clean latents are larger than that flow's."""
    begins: Callable[[int, Mapping[str, Any]], int] = lambda steps, settings: 0
    """(steps, settings) -> how many of the first steps its loop leaves out."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The sampling loop's timesteps (scheduler's units) and noise levels, one per step."""

    timesteps: Array
    sigmas: Array


def after_strength(steps: int, settings: Mapping[str, Any]) -> int:
    """The first steps that a pipeline leaves out which begins with a picture under noise of a strength in 0..1."""
    return int(max(steps - min(steps * settings["strength"], steps), 0))


def schedule(pipe: Any, levels: Levels, steps: int, tokens: int, settings: Mapping[str, Any]) -> Schedule:
    """The timesteps and noise levels of a run with so many generated tokens, from a copy of the pipeline's scheduler: those of
    the steps that it takes.
    """
    every, first = _every_step(pipe, levels, steps, tokens), levels.begins(steps, settings)
    begin = first * getattr(pipe.scheduler, "order", 1)
    if first and begin >= len(every.timesteps):
        raise InputError(f"strength must leave at least one of {steps} steps; got {settings['strength']} (try {1 / steps:g})")
    return Schedule(every.timesteps[begin:], every.sigmas[begin:])


def _every_step(pipe: Any, levels: Levels, steps: int, tokens: int) -> Schedule:
    """Those of all steps."""
    scheduler, name = copy.deepcopy(pipe.scheduler), type(pipe.scheduler).__name__
    own_levels = levels.leaves_flow and getattr(scheduler.config, "use_flow_sigmas", False)
    accepted = inspect.signature(scheduler.set_timesteps).parameters
    arguments = {key: value for key, value in levels.arguments(steps).items() if key in accepted}
    if levels.sized is not None:
        arguments["sigmas"] = levels.sized(pipe, tokens, steps)
    elif levels.sigmas is not None and "sigmas" in accepted and not own_levels:
        arguments["sigmas"] = levels.sigmas(steps)
        arguments |= {"timesteps": levels.timesteps(steps)} if levels.timesteps is not None else {}
    else:
        arguments["num_inference_steps"] = steps
    if getattr(scheduler.config, "use_dynamic_shifting", False):
        arguments["mu"] = levels.shift(pipe, tokens, steps)
    try:
        scheduler.set_timesteps(**arguments)
    except (ValueError, TypeError) as error:
        raise InputError(f"steps: the model's {name} refuses {steps} steps ({error}); give another --steps") from error
    if levels.flow is not None:
        found = levels.flow(scheduler)
        return Schedule(found * FLOW_TIMESTEPS, found)
    timesteps = np.asarray(scheduler.timesteps.cpu(), np.float64)
    if not np.isfinite(timesteps).all():
        raise InputError(f"steps: the model's {name} has no timesteps for {steps} steps; give another --steps")
    return Schedule(timesteps, noise_levels(scheduler, timesteps))


def noise_levels(scheduler: Any, timesteps: Array) -> Array:
    """Sigma of each step: the scheduler's sigmas (1 - sigma where `invert_sigmas` is set), or sqrt((1 - a) / a) from its
    cumulative alphas a.
    """
    if hasattr(scheduler, "sigmas"):
        levels = np.asarray(scheduler.sigmas.double().cpu().numpy()[: len(timesteps)])
        return 1 - levels if getattr(scheduler.config, "invert_sigmas", False) else levels
    kept = scheduler.alphas_cumprod.double().cpu().numpy()[timesteps.astype(int)]
    with np.errstate(divide="ignore"):  # a schedule may begin at pure noise, sigma infinite
        return np.asarray(np.sqrt((1 - kept) / kept))
