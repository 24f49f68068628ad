"""Guidance: every rule against separate calls of the plain transformer; windows, schedules, costs.

That every family's guided rows equal separate calls and its pipeline's own guidance is in `interp.testing.FamilyTests`.
"""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import KINDS, family_of, full, prompts_for
from diffusers.models.attention_processor import PAGJointAttnProcessor2_0
from messages import refused, warned
from torch import Tensor
from torch.overrides import TorchFunctionMode

import interp
from interp.experiments.clean import sample
from interp.guidance import (
    APG,
    Amplify,
    AutoGuidance,
    CFGPlusPlus,
    CFGZeroStar,
    ClassifierFree,
    DetailGuidance,
    PerturbedAttention,
    SkipLayer,
    equations,
)
from interp.guidance.text import from_json
from interp.interventions import Scale, SetMean, Zero, edited
from interp.interventions.forks import around_calls
from interp.testing.edit_laws import DETAIL, STEPS, assert_close, latents_of, nothing_left, zeroed
from interp.testing.edit_laws import ByHand as _ByHand
from interp.tracing.prepare import prepare


def ByHand(model: interp.Model, name: str, prepared: Any) -> _ByHand:  # noqa: N802
    return _ByHand(family_of(name), model, prepared)


def drawn(model: interp.Model, name: str, guidance: Any, **more: Any) -> np.ndarray:
    return latents_of(model, prompts_for(name)[:2], guidance, **more)


CASES: dict[str, tuple[Any, Any]] = {
    "cfg": (ClassifierFree(3.0), lambda c, u, d: u + 3.0 * (c - u)),
    "dg": (DETAIL, lambda c, u, d: c + 1.5 * (c - d)),
    "cfg+dg": (ClassifierFree(3.0) + DETAIL, lambda c, u, d: c + 2.0 * (c - u) + 1.5 * (c - d)),  # equation 5
    "unconditional dg": (
        ClassifierFree(0.0) + DetailGuidance(channels=[2, 5], block=1, scale=1.5, of="uncond"),
        lambda c, u, d: u + 1.5 * (u - d),
    ),
}
QUICK = [("tiny_model", True), ("dit_model", False), ("flux_model", True)]
"""Models, and whether branches run one after the other."""


SLOW_SKIPS = full(*(f"{name}_model" for name in ("tiny", "schnell", "demo", "sana", "wan")))


def every_case() -> list[Any]:
    """Cases x models x (one batch, one call a branch); the quick ones in `make test`."""
    cross = itertools.product(CASES, ["tiny_model", "demo_model", "schnell_model", "wan_model", *KINDS], [False, True])
    return [pytest.param(n, c, s, marks=() if (n, s) in QUICK else pytest.mark.full) for c, n, s in cross]


@pytest.mark.parametrize(("name", "case", "sequential"), every_case())
def test_guidance_equals_separate_calls_by_hand(name: str, case: str, sequential: bool, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    prepared = prepare(model, prompts_for(name)[:2], steps=STEPS)
    guidance, formula = CASES[case]
    expected = ByHand(model, name, prepared).guided(formula, of="uncond" if case.startswith("uncond") else "cond")
    found = drawn(model, name, guidance, sequential=sequential)
    assert_close(found, expected)
    assert not np.allclose(found, drawn(model, name, None), atol=1e-4)
    assert nothing_left(model)


def test_qwen_image_rescales_its_own_guidance(qwenimage_model: interp.Model) -> None:
    """Its pipeline brings the guided prediction to the conditional one's size, token by token; `cfg` does not."""
    model, name = qwenimage_model, "qwenimage_model"
    prepared = prepare(model, prompts_for(name)[:2], steps=STEPS)

    def rescaled(cond: Any, uncond: Any, step: int) -> Tensor:
        c, u = cond(), uncond()
        guided = u + 3.0 * (c - u)
        return guided * (c.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))

    with torch.no_grad():
        by_hand = ByHand(model, name, prepared).latents(rescaled)
    size = {"height": 64, "width": 64, "num_inference_steps": STEPS, "output_type": "latent", **model.settings()}
    noise = [torch.Generator().manual_seed(row.seed) for row in prepared.plan.rows()]
    both = {"negative_prompt": ["", ""], "true_cfg_scale": 3.0, "generator": noise}
    own = model.pipe(prompts_for(name)[:2], **both, **size).images
    assert_close(own.numpy(), by_hand)
    assert not np.allclose(drawn(model, name, ClassifierFree(3.0)), by_hand, atol=1e-3)


def test_a_branch_that_forks_where_both_streams_are_one_state(flux2_model: interp.Model) -> None:
    prepared = prepare(flux2_model, prompts_for("flux2_model")[:2], steps=STEPS)
    text = prepared.layout.tokens("text")

    def image_alone(value: Tensor, given: Tensor) -> Tensor:
        value = value.clone()
        value[:, text:, [2, 5]] = 0
        return value

    by_hand = ByHand(flux2_model, "flux2_model", prepared)
    expected = by_hand.latents(lambda c, u, step: c() + 1.5 * (c() - c((3, image_alone))))
    found = drawn(flux2_model, "flux2_model", DetailGuidance(channels=[2, 5], block=3, scale=1.5))
    assert_close(found, expected)


@pytest.mark.parametrize("name", ["tiny_model", "dit_model", "flux2_model"])
def test_a_neutral_scale_drops_its_branch(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    plain = drawn(model, name, None)
    rows: list[int] = []
    handle = model.pipe.transformer.get_submodule(model.anatomy.blocks[-1].path).register_forward_hook(
        lambda m, a, output: rows.append(len(output[1] if isinstance(output, tuple) else output))
    )
    neutral = [ClassifierFree(1.0), DetailGuidance(channels=2, block=1, scale=0.0), SkipLayer(blocks=1, scale=0), APG(1.0)]
    found = [drawn(model, name, one) for one in (*neutral, ClassifierFree(1.0) + neutral[1])]
    handle.remove()
    for latents in found:
        np.testing.assert_array_equal(latents, plain)
    assert set(rows) == {2}


def test_a_window_and_a_schedule(tiny_model: interp.Model) -> None:
    name = "tiny_model"
    windowed = drawn(tiny_model, name, DetailGuidance(channels=[2, 5], block=1, scale=1.5, steps="1"))
    scheduled = drawn(tiny_model, name, DetailGuidance(channels=[2, 5], block=1, scale=[0.0, 1.5, 0.0]))
    np.testing.assert_array_equal(windowed, scheduled)
    assert not np.array_equal(windowed, drawn(tiny_model, name, DETAIL))
    with refused(interp.InputError, 3, "steps", 2):
        drawn(tiny_model, name, ClassifierFree([1.0, 2.0]))


@pytest.mark.parametrize(("window", "steps"), [("0", {0}), ("1-2", {1, 2}), ("0-1", {0, 1})])
def test_a_window_acts_at_its_first_and_last_step(window: str, steps: set[int], tiny_model: interp.Model) -> None:
    prepared = prepare(tiny_model, prompts_for("tiny_model")[:2], steps=STEPS)

    def rule(cond: Any, uncond: Any, step: int) -> Tensor:
        return cond() + 1.5 * (cond() - cond((1, zeroed))) if step in steps else cond()

    expected = ByHand(tiny_model, "tiny_model", prepared).latents(rule)
    found = drawn(tiny_model, "tiny_model", DetailGuidance(channels=[2, 5], block=1, scale=1.5, steps=window))
    assert_close(found, expected)


@pytest.mark.parametrize(
    ("edit", "change"),
    [
        ("mean", lambda v, g: _set(v, v[..., [2, 5]].mean(dim=1, keepdim=True).expand_as(v[..., [2, 5]]))),
        (0.25, lambda v, g: _set(v, 0.25 * v[..., [2, 5]])),
    ],
)
def test_other_ways_to_disrupt(edit: Any, change: Any, tiny_model: interp.Model) -> None:
    prepared = prepare(tiny_model, prompts_for("tiny_model")[:2], steps=STEPS)
    expected = ByHand(tiny_model, "tiny_model", prepared).latents(lambda c, u, step: c() + 1.5 * (c() - c((1, change))))
    found = drawn(tiny_model, "tiny_model", DetailGuidance(channels=[2, 5], block=1, scale=1.5, edit=edit))
    assert_close(found, expected)


def _set(value: Tensor, part: Tensor) -> Tensor:
    value = value.clone()
    value[..., [2, 5]] = part
    return value


@pytest.mark.parametrize("name", ["dual_model", "flux_model", "dit_model", "flux2_model", *SLOW_SKIPS])
def test_skipped_layers(name: str, request: pytest.FixtureRequest) -> None:
    """The image and text states pass a skipped block unchanged: written as hooks that hand on what the block was given."""
    model = request.getfixturevalue(name)
    prepared = prepare(model, prompts_for(name)[:2], steps=STEPS)
    by_hand = ByHand(model, name, prepared)
    skipped = (1, 2)

    def passing(module: Any, arguments: Any, named: Any, output: Any) -> Any:
        image = named.get("hidden_states", arguments[0] if arguments else None)
        if not isinstance(output, tuple):
            return image
        text = named.get("encoder_hidden_states", arguments[1] if len(arguments) > 1 else None)
        return text if output[0] is not None else None, image

    def rule(cond: Any, uncond: Any, step: int) -> Tensor:
        c = cond()
        modules = [model.pipe.transformer.get_submodule(model.anatomy.blocks[block].path) for block in skipped]
        handles = [module.register_forward_hook(passing, with_kwargs=True) for module in modules]
        d = cond()
        for handle in handles:
            handle.remove()
        guided = by_hand.first(c) + 2.0 * (by_hand.first(c) - by_hand.first(d))
        return by_hand.merged(c, guided)

    expected = by_hand.latents(rule)
    guidance = SkipLayer(blocks=skipped, scale=2.0)
    assert_close(drawn(model, name, guidance), expected)
    assert_close(drawn(model, name, guidance, sequential=True), expected)


@pytest.mark.parametrize("name", ["tiny_model", "flux_model", "dit_model", "qwenimage_model", "sigma_model"])
def test_perturbed_attention(name: str, request: pytest.FixtureRequest) -> None:
    """Attention's result for image tokens replaced by their own values, in block 1 of a call of its own: by default where
    attention is over image tokens alone, else with text=cut.
    """
    model = request.getfixturevalue(name)
    prepared = prepare(model, prompts_for(name)[:2], steps=STEPS)
    by_hand = ByHand(model, name, prepared)
    block = model.pipe.transformer.get_submodule(model.anatomy.blocks[1].path)
    attention = block.attn if hasattr(block, "attn") else block.attn1

    def rule(cond: Any, uncond: Any, step: int) -> Tensor:
        c, kept = cond(), []
        handles = [attention.to_v.register_forward_hook(lambda m, a, output: kept.append(output))]
        handles.append(attention.to_out[0].register_forward_pre_hook(lambda m, a: (kept[-1],)))
        d = cond()
        for handle in handles:
            handle.remove()
        guided = by_hand.first(c) + 2.0 * (by_hand.first(c) - by_hand.first(d))
        return by_hand.merged(c, guided)

    expected = by_hand.latents(rule)
    text = "cut" if model.anatomy.blocks[1].is_joint else "kept"
    found = drawn(model, name, PerturbedAttention(blocks=1, scale=2.0, text=text))
    assert_close(found, expected)
    assert not np.allclose(found, drawn(model, name, None), atol=1e-5)


def test_perturbed_attention_is_that_of_diffusers_processor(tiny_model: interp.Model) -> None:
    """The perturbed half of the batch of `PAGJointAttnProcessor2_0` in block 1: image-to-text attention is kept."""
    name, prepared = "tiny_model", prepare(tiny_model, prompts_for("tiny_model")[:2], steps=STEPS)
    rows = tiny_model.anatomy.row_inputs
    attention = tiny_model.pipe.transformer.transformer_blocks[1].attn
    own = attention.processor

    def around(step: int, bound: dict[str, Any], run: Any) -> Tensor:
        c = run(bound)
        twice = {**bound, **{key: bound[key].repeat(2, *[1] * (bound[key].ndim - 1)) for key in rows}}
        attention.set_processor(PAGJointAttnProcessor2_0())
        d = run(twice)[len(c) :]
        attention.set_processor(own)
        return c + 2.0 * (c - d)

    with around_calls(tiny_model.pipe.transformer, around, tiny_model.anatomy):
        expected = sample(prepared, prepared.plan.rows())[1]
    pag = PerturbedAttention(blocks=1, scale=2.0)
    assert_close(drawn(tiny_model, name, pag), expected)
    assert_close(drawn(tiny_model, name, pag, sequential=True), expected)
    assert not np.allclose(expected, drawn(tiny_model, name, PerturbedAttention(blocks=1, scale=2.0, text="cut")), atol=1e-4)


@pytest.mark.parametrize("name", ["flux_model", *full("qwenimage_model", "dual_model")])
def test_perturbed_attention_keeps_the_text(name: str, request: pytest.FixtureRequest) -> None:
    """An explicit softmax over text keys and each image token's own key, in place of block 1's call of attention."""
    model = request.getfixturevalue(name)
    prepared = prepare(model, prompts_for(name)[:2], steps=STEPS)
    by_hand, block = ByHand(model, name, prepared), model.pipe.transformer.get_submodule(model.anatomy.blocks[1].path)
    images, text_first = prepared.layout.tokens("image"), name != "dual_model"

    def explicit(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: Any) -> Tensor:
        scores = query @ key.mT / query.shape[-1] ** 0.5
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        is_image = torch.arange(scores.shape[-1])
        is_image = is_image >= len(is_image) - images if text_first else is_image < images
        if is_image.all():  # dual attention's second call
            return scores.softmax(dim=-1) @ value
        others = is_image[:, None] & is_image & ~torch.eye(len(is_image), dtype=torch.bool)
        return scores.masked_fill(others, -torch.inf).softmax(dim=-1) @ value

    class Explicit(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return (explicit if func is torch.nn.functional.scaled_dot_product_attention else func)(*args, **(kwargs or {}))

    def rule(cond: Any, uncond: Any, step: int) -> Tensor:
        c, mode = cond(), Explicit()
        handles = [block.register_forward_pre_hook(lambda m, a: [mode.__enter__(), None][1])]
        handles.append(block.register_forward_hook(lambda m, a, o: mode.__exit__(None, None, None)))
        d = cond()
        for handle in handles:
            handle.remove()
        return by_hand.merged(c, by_hand.first(c) + 2.0 * (by_hand.first(c) - by_hand.first(d)))

    assert_close(drawn(model, name, PerturbedAttention(blocks=1, scale=2.0)), by_hand.latents(rule))


def test_stored_guidance_without_a_word_on_text_cut_it() -> None:
    old = {"method": "pag", "blocks": [1], "scale": 2.0}
    (cut,) = from_json([old]).methods
    assert cut.text == "cut"  # type: ignore[attr-defined]
    assert cut.to_json() == old
    kept = PerturbedAttention(blocks=1, scale=2.0)
    assert from_json([kept.to_json()]).methods == (kept,)


def test_autoguidance_and_amplification(demo_model: interp.Model) -> None:
    early, name = interp.load("demo-early"), "demo_model"
    prepared = prepare(demo_model, prompts_for(name)[:2], steps=STEPS)

    def around(step: int, bound: dict[str, Any], run: Any) -> Tensor:
        c = run(bound)
        bad = early.pipe.transformer(**{**bound, "return_dict": False})[0]
        return c + 0.5 * (c - bad)

    with around_calls(demo_model.pipe.transformer, around, demo_model.anatomy):
        expected = sample(prepared, prepared.plan.rows())[1]
    assert_close(drawn(demo_model, name, AutoGuidance(early, 0.5)), expected)
    with edited(demo_model, [Scale(1.3, channels=[29], blocks=1)]):
        louder = sample(prepared, prepared.plan.rows())[1]
    assert_close(drawn(demo_model, name, Amplify(channels=[29], block=1, scale=1.3)), louder)


@pytest.mark.parametrize("name", ["tiny_model", "dit_model"])
def test_stateful_rules_in_a_run(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    prepared = prepare(model, prompts_for(name)[:2], steps=STEPS)
    by_hand, parts, sigmas = ByHand(model, name, prepared), len(prepared.layout.prediction), [*prepared.schedule.sigmas, 0.0]
    before: list[Tensor] = []

    def apg(c: Tensor, u: Tensor, step: int) -> Tensor:
        average = c - u if not before else c - u - 0.5 * before[-1]
        before.append(average)
        return equations.projected(c, u, 4.0, 0.2, 15.0, average)

    def plus(c: Tensor, u: Tensor, step: int) -> Tensor:
        rule = equations.plus_plus_noise if parts > 1 else equations.plus_plus_velocity
        return rule(c, u, 0.6, sigmas[step], sigmas[step + 1])

    def zero(c: Tensor, u: Tensor, step: int) -> Tensor:
        return torch.zeros_like(c) if step == 0 else equations.zero_star(c, u, 4.0)

    methods = {apg: APG(4.0, eta=0.2), plus: CFGPlusPlus(0.6), zero: CFGZeroStar(4.0)}
    for formula, method in methods.items():

        def rule(cond: Any, uncond: Any, step: int, formula: Any = formula) -> Tensor:
            c, u = cond(), uncond()
            return by_hand.merged(c, formula(by_hand.first(c), by_hand.first(u), step))

        expected = by_hand.latents(rule)
        assert_close(drawn(model, name, method), expected)


def test_a_guided_trace_records_the_conditional_rows(tiny_model: interp.Model, tmp_path: Path) -> None:
    guidance = ClassifierFree(3.0) + DETAIL
    with warned(interp.InterpWarning, "guidance", "channels"):  # none is massive in a tiny random model
        run = interp.trace(
            tiny_model, prompts_for("tiny_model")[:2], out=tmp_path / "g.zarr", steps=STEPS, guidance=guidance, batch_size=2
        )
    np.testing.assert_array_equal(run.images["latents"], drawn(tiny_model, "tiny_model", guidance))
    assert [one["method"] for one in run.plan["guidance"]] == ["cfg", "dg"]
    prepared = prepare(tiny_model, prompts_for("tiny_model")[:2], steps=STEPS)
    seen: list[np.ndarray] = []

    def rule(cond: Any, uncond: Any, step: int) -> Tensor:
        kept: list[Tensor] = []
        block = tiny_model.pipe.transformer.get_submodule(tiny_model.anatomy.blocks[2].path)
        handle = block.register_forward_hook(lambda m, a, output: kept.append(output[1]))
        c = cond()
        handle.remove()
        seen.append(kept[0].abs().mean(dim=1).numpy())
        return c + 2.0 * (c - uncond()) + 1.5 * (c - cond((1, zeroed)))

    ByHand(tiny_model, "tiny_model", prepared).latents(rule)
    stored = run.stats["mean_abs"].sel(block=2, stream="image").to_numpy()
    np.testing.assert_allclose(stored, np.stack(seen, axis=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny_model", "flux_model", *full("dit_model")])
def test_counted_flops_are_those_of_the_fork(name: str, request: pytest.FixtureRequest) -> None:
    """At most 1 + (N - m - 1) / N and 2 + (N - m - 1) / N forwards, and 5% for the head and the embedders."""
    from torch.utils.flop_counter import FlopCounterMode

    model = request.getfixturevalue(name)

    def flops(guidance: Any) -> float:
        prepared = prepare(model, prompts_for(name)[:1], steps=1, guidance=guidance)
        guide = prepared.guide()
        transformer = model.pipe.transformer
        with (
            guide.guiding(transformer) if guide else contextlib.nullcontext(),
            FlopCounterMode(display=False) as count,
        ):
            sample(prepared, prepared.plan.rows())
        own = next(key for key in count.get_flop_counts() if key.endswith(type(transformer).__name__))
        return float(sum(count.get_flop_counts()[own].values()))

    plain, blocks = flops(None), len(model.anatomy.blocks)
    for block in range(blocks):
        detail = DetailGuidance(channels=2, block=block, scale=1.0)
        share = (blocks - block - 1) / blocks
        room = 0.05 + (0.35 if name == "flux_model" else 0.0)  # tiny Flux's double and single blocks differ in size
        assert flops(detail) <= plain * (1 + share + room)
        assert flops(ClassifierFree(2) + detail) <= plain * (2 + share + room)
    assert flops(DetailGuidance(channels=2, block=0, scale=1.0)) > flops(
        DetailGuidance(channels=2, block=blocks - 1, scale=1.0)
    )


def test_degraded_rows_are_those_of_an_edited_picture(tiny_model: interp.Model) -> None:
    """Scale -1 of `c + w (c - d)` is d itself: the picture of the disruption."""
    alone = drawn(tiny_model, "tiny_model", DetailGuidance(channels=[2, 5], block=1, scale=-1.0))
    prepared = prepare(tiny_model, prompts_for("tiny_model")[:2], steps=STEPS)
    with edited(tiny_model, [Zero(channels=[2, 5], blocks=1)]):
        expected = sample(prepared, prepared.plan.rows())[1]
    assert_close(alone, expected)
    with edited(tiny_model, [SetMean(channels=[2, 5], blocks=1)]):
        mean = sample(prepared, prepared.plan.rows())[1]
    assert not np.allclose(mean, expected, atol=1e-4)
