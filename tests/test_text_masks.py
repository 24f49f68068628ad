"""Padded text under masks, and text that sets the gates by its tokens."""

from __future__ import annotations

import numpy as np
import torch
from conftest import PROMPTS
from messages import refused, warned

import interp
from interp.experiments.kinds import swap as swaps
from interp.interventions import SwapConditioning
from interp.tracing.prepare import prepare


def test_padding_changes_nothing_but_rounding(qwenimage_model: interp.Model) -> None:
    """Qwen-Image's prompts, given as text to the plain pipeline one at a time and without padding, draw the same."""
    found = interp.generate(qwenimage_model, PROMPTS[:3], steps=3, seeds="shared", batch_size=3)["latents"].to_numpy()
    size = {"height": 64, "width": 64, "num_inference_steps": 3, "true_cfg_scale": 1.0}
    for row, prompt in enumerate(PROMPTS[:3]):
        generator = torch.Generator().manual_seed(0)
        own = qwenimage_model.pipe(prompt, generator=generator, output_type="latent", **size).images
        np.testing.assert_allclose(found[row], own[0].numpy(), rtol=1e-4, atol=1e-5)


def test_a_text_as_long_as_it_may_be_needs_no_mask(qwenimage_model: interp.Model) -> None:
    """The pipeline then leaves the mask out; an unconditional row, which has one, still joins."""
    long = " ".join(["a red cat and the blue dog"] * 4)
    with warned(interp.InterpWarning, "tokens", "cut"):
        found = interp.generate(qwenimage_model, [long], steps=2, guidance="cfg:3")
    with warned(interp.InterpWarning, "tokens", "cut"):
        plain = interp.generate(qwenimage_model, [long], steps=2)
    assert not np.array_equal(found["latents"], plain["latents"])


def test_other_text_keeps_the_image_part_of_a_mask(chroma_model: interp.Model) -> None:
    """The swap of text tokens draws the other prompt's picture from the same noise, its mask over text alone and all."""
    other_text = SwapConditioning.of(chroma_model, prompt=PROMPTS[1], tokens=True)
    found = interp.generate(chroma_model, PROMPTS[:1], steps=3, seeds=[0], interventions=[other_text])["latents"].to_numpy()
    other = interp.generate(chroma_model, [PROMPTS[1]], steps=3, seeds=[0])["latents"].to_numpy()
    np.testing.assert_allclose(found, other, atol=1e-6)


def test_text_that_sets_the_gates_by_its_tokens_is_swapped_by_them(mochi_model: interp.Model) -> None:
    with refused(interp.InputError, "pooled", "tokens"):
        SwapConditioning.of(mochi_model, prompt=PROMPTS[1], pooled=True)
    assert swaps.factors_of(prepare(mochi_model, PROMPTS[:2], steps=3)) == ("timestep", "latents", "tokens")
