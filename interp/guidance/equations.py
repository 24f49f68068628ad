"""Equations that combine predictions, one function each, on tensors (row, ...).

c is the conditional prediction, u the unconditional one, d a degraded one. Scales follow the usual convention: CFG at scale 1
is the conditional prediction. Detail Guidance writes equation 5 with lambda = scale - 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def classifier_free(c: Tensor, u: Tensor, scale: float) -> Tensor:
    """u + scale (c - u).                                                          Ho and Salimans, arXiv 2207.12598"""
    return u + scale * (c - u)


def away(good: Tensor, bad: Tensor, scale: float) -> Tensor:
    """scale (good - bad), added to a base: w (c - d) of Detail Guidance (arXiv 2510.11538, eq. 4, and 5 with CFG as the base),
    perturbed-attention (arXiv 2403.17377), skip-layer and autoguidance (arXiv 2406.02507, whose w is scale + 1).
    """
    return scale * (good - bad)


def projected(c: Tensor, u: Tensor, scale: float, eta: float, limit: float, average: Tensor | None) -> Tensor:
    """c + (scale - 1) (orthogonal + eta parallel), of c - u (or its running average) along c, its norm limited.

    Adaptive projected guidance, Sadat et al., arXiv 2410.02416, algorithm 1. `limit` 0 is no limit. diffusers starts
    from u instead, u + scale (...), which differs if eta is not 1.
    """
    difference = c - u if average is None else average
    axes = tuple(range(1, difference.ndim))
    if limit > 0:
        size = _size(difference)
        difference = difference * torch.minimum(torch.ones_like(size), limit / size)
    wide, along = difference.double(), c.double()
    along = along / _size(along).clamp_min(1e-12)
    parallel = (wide * along).sum(dim=axes, keepdim=True) * along
    update = (wide - parallel) + eta * parallel
    guided: Tensor = c + (scale - 1) * update.to(c.dtype)
    return guided


def optimised_scale(c: Tensor, u: Tensor) -> Tensor:
    """s = <c, u> / |u|^2 per row: s u is the multiple of u nearest c.              CFG-Zero*, Fan et al., arXiv 2503.18886"""
    axes = tuple(range(1, c.ndim))
    fitted: Tensor = (c * u).sum(dim=axes, keepdim=True) / ((u * u).sum(dim=axes, keepdim=True) + 1e-8)
    return fitted


def zero_star(c: Tensor, u: Tensor, scale: float) -> Tensor:
    """s u + scale (c - s u).                                                    CFG-Zero*, Fan et al., arXiv 2503.18886"""
    fitted = optimised_scale(c, u) * u
    return fitted + scale * (c - fitted)


def plus_plus_velocity(c: Tensor, u: Tensor, scale: float, sigma: float, next_sigma: float) -> Tensor:
    """CFG++ (Chung et al., arXiv 2406.08070) as a velocity: the clean estimate from u + scale (c - u), scale in 0..1, the noise
    from u. With x = (1 - sigma) x0 + sigma e and one Euler step to sigma':

        v = (sigma (1 - sigma') (u + scale (c - u)) - sigma' (1 - sigma) u) / (sigma - sigma')
    """
    guided = u + scale * (c - u)
    return (sigma * (1 - next_sigma) * guided - next_sigma * (1 - sigma) * u) / (sigma - next_sigma)


def plus_plus_noise(c: Tensor, u: Tensor, scale: float, sigma: float, next_sigma: float) -> Tensor:
    """The same for noise predictions and DDIM steps, x = (x0 + sigma e) / sqrt(1 + sigma^2), and for v of the same x:

    e = (u + scale (c - u) - r u) / (1 - r),    r = sigma' / sigma, which is 0 at pure noise
    """
    guided, ratio = u + scale * (c - u), next_sigma / sigma
    return (guided - ratio * u) / (1 - ratio)


def _size(value: Tensor) -> Tensor:
    """Euclidean norm of each row."""
    return (value * value).sum(dim=tuple(range(1, value.ndim)), keepdim=True).sqrt()
