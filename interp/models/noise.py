"""Noise levels: the clean picture from a prediction, and noise added to a clean picture.

velocity:  x = (1 - sigma) x0 + sigma e,          v = e - x0             (rectified flow, arXiv 2209.03003, 2403.03206)
           Mochi and HiDream predict -v, `minus_velocity`
epsilon:   x = (x0 + sigma e) / sqrt(1 + sigma^2)                        (DDPM, arXiv 2006.11239, sigma^2 = (1 - a) / a)
v:         the same x,                            v = (e - sigma x0) / sqrt(1 + sigma^2)       (arXiv 2202.00512)
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from interp.base.errors import ModelError

VELOCITIES = ("velocity", "minus_velocity")


def denoised(prediction: tuple[str, ...], latents: Tensor, output: Tensor, sigma: float) -> Tensor:
    """x0, from the latents at a level and the transformer's output there; `prediction` names the output's parts."""
    first = output.chunk(len(prediction), dim=1)[0] if len(prediction) > 1 else output
    kind = _kind(prediction)
    if kind == "v":  # finite even at pure noise, where sigma is infinite
        kept = 1 / math.hypot(1.0, sigma)
        return kept * latents - math.sqrt(1 - kept**2) * first
    if kind == "epsilon":
        return math.hypot(1.0, sigma) * latents - sigma * first
    return latents + (sigma if kind == "minus_velocity" else -sigma) * first


def noised(prediction: tuple[str, ...], clean: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """x at a level, from clean latents and unit noise."""
    if is_velocity(prediction):
        return (1 - sigma) * clean + sigma * noise
    kept = 1 / math.hypot(1.0, sigma)
    return kept * clean + math.sqrt(1 - kept**2) * noise


def last_level(scheduler: Any) -> float:
    """The noise level after the last step."""
    if hasattr(scheduler, "sigmas"):
        return 0.0
    kept = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    return float(((1 - kept) / kept) ** 0.5)


def is_velocity(prediction: tuple[str, ...]) -> bool:
    """Whether latents are (1 - sigma) x0 + sigma e."""
    return _kind(prediction) in VELOCITIES


def _kind(prediction: tuple[str, ...]) -> str:
    kinds = (*VELOCITIES, "epsilon", "v")
    if prediction[0] not in kinds:
        raise ModelError(f"prediction {prediction[0]!r} is not known: it must be one of {', '.join(kinds)}")
    return prediction[0]
