"""Predictions of v, schedules from pure noise, schedulers that run backwards, and timesteps that cannot be set."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from conftest import PROMPTS
from messages import refused

import interp
from interp.experiments.kinds.swap import swap
from interp.guidance import equations
from interp.interventions import SwapConditioning
from interp.models import noise, tiny
from interp.testing import check_anatomy
from interp.tracing.prepare import prepare


def test_v_is_what_its_schedulers_take_it_for() -> None:
    """The clean picture of a v prediction, as diffusers' DDIM finds it; the level is sqrt((1 - a) / a)."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False)
    scheduler.set_timesteps(5)
    x, v = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    for timestep in scheduler.timesteps:
        kept = scheduler.alphas_cumprod[timestep]
        own = scheduler.step(v, timestep, x).pred_original_sample
        found = noise.denoised(("v", "sigma"), x, torch.cat([v, v * 0], dim=1), float(((1 - kept) / kept) ** 0.5))
        torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-4)


def test_v_is_one_even_of_pure_noise() -> None:
    """CogVideoX's schedules begin there: sigma is infinite, the clean picture is -v, and CFG++ is the guided prediction."""
    x, v, other = (torch.randn(2, 4, 8, 8) for _ in range(3))
    torch.testing.assert_close(noise.denoised(("v",), x, v, math.inf), -v)
    torch.testing.assert_close(noise.noised(("v",), x, other, math.inf), other)
    torch.testing.assert_close(equations.plus_plus_noise(v, other, 0.6, math.inf, 2.0), other + 0.6 * (v - other))
    clean = noise.denoised(("v",), x, v, 1.3)
    implied = (v * (1 + 1.3**2) ** 0.5) + 1.3 * clean
    torch.testing.assert_close(noise.noised(("v",), clean, implied, 1.3), x, rtol=1e-4, atol=1e-5)


def test_a_schedule_may_begin_at_pure_noise(cogvideox_model: interp.Model) -> None:
    prepared = prepare(cogvideox_model, PROMPTS[:1], steps=3)
    assert np.isposinf(prepared.schedule.sigmas[0])
    assert np.isfinite(prepared.schedule.sigmas[1:]).all()
    found = interp.generate(cogvideox_model, PROMPTS[:1], steps=3, guidance="cfgpp:0.5")
    assert np.isfinite(found["latents"]).all()


def test_a_scheduler_that_runs_backwards_has_levels_that_fall(mochi_model: interp.Model) -> None:
    """Mochi's timesteps rise from 0, at noise, to 1000."""
    times = prepare(mochi_model, PROMPTS[:1], steps=4).schedule
    assert (np.diff(times.timesteps) > 0).all()
    assert (np.diff(times.sigmas) < 0).all()
    assert times.sigmas[0] == 1.0


def test_one_step_that_a_scheduler_cannot_make_is_refused(ltx_model: interp.Model) -> None:
    with refused(interp.InputError, "steps", 1, "--steps"):
        interp.generate(ltx_model, PROMPTS[:1], steps=1)


def test_one_of_two_timesteps_is_not_swapped(tmp_path: Path) -> None:
    """Distilled HunyuanImage also receives the next step's (MeanFlow)."""
    model = interp.load(tiny.build("hunyuanimage", tmp_path / "distilled", distilled=True))
    with refused(interp.InputError, "timestep", "two"):
        SwapConditioning.of(model, timestep=300.0)
    with refused(interp.ModelError, "two", "timesteps"):
        swap(model, PROMPTS[:2], out=tmp_path / "s.zarr", channels=[3], steps=2)
    assert all(check.passed for check in check_anatomy(model))
