"""The combining rules on random tensors: against their formulas, their laws, and diffusers' working classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from interp.guidance import ClassifierFree, DetailGuidance, equations
from interp.guidance.method import Combined, Context


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


C, U, D = (random(3, 4, 8, 8, seed=seed) for seed in range(3))


def test_rules_equal_diffusers_working_classes() -> None:
    from diffusers.guiders import AdaptiveProjectedGuidance, ClassifierFreeGuidance, ClassifierFreeZeroStarGuidance

    def theirs(guider: Any) -> Tensor:
        guider.set_state(step=0, num_inference_steps=10, timestep=torch.tensor(500))
        result = guider.forward(pred_cond=C, pred_uncond=U)
        return result.pred if hasattr(result, "pred") else result[0]

    torch.testing.assert_close(equations.classifier_free(C, U, 4.0), theirs(ClassifierFreeGuidance(guidance_scale=4.0)))
    zero = ClassifierFreeZeroStarGuidance(guidance_scale=4.0, zero_init_steps=0)
    torch.testing.assert_close(equations.zero_star(C, U, 4.0), theirs(zero), rtol=1e-4, atol=1e-4)
    for eta, limit in ((0.0, 3.0), (0.5, 1000.0), (1.0, 2.0)):
        apg = AdaptiveProjectedGuidance(
            guidance_scale=3.0, adaptive_projected_guidance_rescale=limit, eta=eta, use_original_formulation=True
        )
        torch.testing.assert_close(equations.projected(C, U, 4.0, eta, limit, None), theirs(apg), rtol=1e-5, atol=1e-5)


def test_rules_by_their_laws() -> None:
    here = Context(step=0, sigma=1.0, next_sigma=0.9, velocity=True, memory={})
    alone, whole = (DetailGuidance(channels=[1], block=2, scale=w) for w in (0.7, 2.0))
    predictions = {"cond": C, "uncond": U, alone.branches()[0].name: D}
    torch.testing.assert_close(Combined.of(alone).combine(predictions, here), 1.7 * C - 0.7 * D)  # equation 4
    torch.testing.assert_close((ClassifierFree(4.0) + whole).combine(predictions, here), C + 3 * (C - U) + 2 * (C - D))  # 5
    fitted = equations.optimised_scale(C, U) * U
    assert ((C - fitted) * U).flatten(1).sum(dim=1).abs().max() < 1e-3  # what is left of c is orthogonal to u
    update = equations.projected(C, U, 2.0, 0.0, 0.0, None) - C
    assert (update * C).flatten(1).sum(dim=1).abs().max() < 1e-3  # eta 0: nothing along c
    torch.testing.assert_close(equations.projected(C, U, 2.0, 1.0, 0.0, None), C + (C - U), rtol=1e-5, atol=1e-5)
    limited = equations.projected(C, U, 2.0, 1.0, 0.5, None) - C
    torch.testing.assert_close(limited.flatten(1).norm(dim=1), torch.full((3,), 0.5), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("sigma", "following"), [(1.0, 0.9), (0.6, 0.3), (0.2, 0.0)])
def test_plus_plus_is_its_own_step(sigma: float, following: float) -> None:
    """One Euler (or DDIM) step with the effective prediction: clean estimate of the guided, noise of the unconditional one."""
    x, guided = random(3, 4, 8, 8, seed=9), U + 0.6 * (C - U)
    clean, noise = x - sigma * guided, x + (1 - sigma) * U
    expected = (1 - following) * clean + following * noise
    velocity = equations.plus_plus_velocity(C, U, 0.6, sigma, following)
    torch.testing.assert_close(x + (following - sigma) * velocity, expected, rtol=1e-4, atol=1e-5)
    now, then = (1 + sigma**2) ** 0.5, (1 + following**2) ** 0.5
    clean = now * x - sigma * guided
    expected = (clean + following * U) / then
    effective = equations.plus_plus_noise(C, U, 0.6, sigma, following)
    torch.testing.assert_close((now * x - sigma * effective + following * effective) / then, expected, rtol=1e-4, atol=1e-5)
