"""Guidance against separate hand-written calls at every step, on every family; rules against their formulas and diffusers'."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reference
import torch
from conftest import ALL, CORE, FAMILIES, LATER, prompts_for
from diffusers.guiders import ClassifierFreeGuidance
from torch import Tensor

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
    from_json,
    parse,
)
from interp.interventions import Scale, SetMean, Zero, edited
from interp.interventions.rows import Slot, around_calls
from interp.models.families.pipeline import spectrogram
from interp.tracing.prepare import prepare

STEPS = 3


def assert_close(found: Any, expected: Any) -> None:
    """To rounding; a random epsilon model's latents run into the hundreds."""
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(expected).max()) / 10))


class ByHand:
    """Separate calls of the plain transformer with hand-made arguments: the reference of every guidance."""

    def __init__(self, model: interp.Model, name: str, prepared: Any) -> None:
        self.model, self.prepared = model, prepared
        self.null = self._null(name)

    def _null(self, name: str) -> dict[str, Tensor]:
        pipe = self.model.pipe
        with torch.no_grad():
            if name in (*FAMILIES, *LATER):
                return no_prompt(pipe, self.prepared.plan.settings.get("max_sequence_length", 0))
            if name == "dit_model":
                return {"class_labels": torch.tensor([1000])}
            if name in ("flux_model", "schnell_model"):
                states, pooled, _ = pipe.encode_prompt(
                    "", "", max_sequence_length=self.prepared.plan.settings["max_sequence_length"]
                )
                return {"encoder_hidden_states": states, "pooled_projections": pooled}
            length = self.prepared.plan.settings["max_sequence_length"]
            states, _, pooled, _ = pipe.encode_prompt("", "", "", do_classifier_free_guidance=False, max_sequence_length=length)
            return {"encoder_hidden_states": states, "pooled_projections": pooled}

    def latents(self, rule: Any) -> np.ndarray:
        """Last latents with `rule(cond, uncond, degraded, step)` in place of every prediction; each a call of its own."""

        def around(step: int, bound: dict[str, Any], run: Any) -> Tensor:
            def uncond(*edits: Any) -> Tensor:
                rows = len(bound["hidden_states"])
                wide = {name: value.expand(rows, *value.shape[1:]).contiguous() for name, value in self.null.items()}
                return call({**bound, **wide}, *edits)

            def call(arguments: dict[str, Any], *edits: Any) -> Tensor:
                if not edits:
                    return run(arguments)
                with plain_edits(self.model, edits):
                    return run(arguments)

            return rule(lambda *edits: call(bound, *edits), uncond, step)

        with self.model.lock, around_calls(self.model.pipe.transformer, around, self.model.anatomy):
            return sample(self.prepared, self.prepared.plan.rows())[1]


def no_prompt(pipe: Any, length: int) -> dict[str, Tensor]:
    """What the pipeline's own guidance gives the transformer in place of a prompt."""
    kind = type(pipe).__name__
    if kind == "Flux2KleinPipeline":
        return {"encoder_hidden_states": pipe.encode_prompt("", max_sequence_length=length)[0]}
    if kind == "ChromaPipeline":
        states, _, mask = pipe.encode_prompt(["x"], "", max_sequence_length=length)[3:]
        image = torch.ones(len(mask), 8 * 8)
        return {"encoder_hidden_states": states, "attention_mask": torch.cat([mask, image], dim=1)}
    if kind == "HunyuanDiTPipeline":
        (clip, clip_mask), (t5, t5_mask) = (
            pipe.encode_prompt(["x"], text_encoder_index=number, max_sequence_length=tokens)[1::2]
            for number, tokens in ((0, 77), (1, 256))
        )
        names = ("encoder_hidden_states", "text_embedding_mask", "encoder_hidden_states_t5", "text_embedding_mask_t5")
        return dict(zip(names, (clip, clip_mask, t5, t5_mask), strict=True))
    if kind == "HunyuanImagePipeline":
        states, mask, glyphs, glyph_mask = pipe.encode_prompt([""], batch_size=1)
        given = {"encoder_hidden_states": states, "encoder_attention_mask": mask}
        return given | {"encoder_hidden_states_2": glyphs, "encoder_attention_mask_2": glyph_mask}
    if kind == "HiDreamImagePipeline":
        _, t5, _, llama, _, pooled = pipe.encode_prompt(["x"], do_classifier_free_guidance=True, max_sequence_length=length)
        llama = llama.movedim(1, 0)  # rows first
        return {"encoder_hidden_states_t5": t5, "encoder_hidden_states_llama3": llama, "pooled_embeds": pooled}
    if kind == "StableAudioPipeline":  # nothing at all, not an empty prompt
        return {"encoder_hidden_states": torch.zeros(1, pipe.tokenizer.model_max_length + 2, 16)}
    if kind == "HunyuanVideoPipeline":
        states, pooled, mask = pipe.encode_prompt("", max_sequence_length=length)
        return {"encoder_hidden_states": states, "pooled_projections": pooled, "encoder_attention_mask": mask.float()}
    if kind == "CogVideoXPipeline":
        return {"encoder_hidden_states": pipe.encode_prompt(["x"], "", True, max_sequence_length=length)[1]}
    if kind in ("LTXPipeline", "MochiPipeline"):
        states, mask = pipe.encode_prompt(["x"], "", True, max_sequence_length=length)[2:]
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}
    if kind == "WanPipeline":
        return {"encoder_hidden_states": pipe.encode_prompt(["x"], "", True, max_sequence_length=length)[1]}
    if kind == "AuraFlowPipeline":
        return {"encoder_hidden_states": pipe.encode_prompt(["x"], "", True, max_sequence_length=length)[2]}
    if kind == "QwenImagePipeline":
        states, mask = reference.padded_text(pipe, [""], length).values()
        return {"encoder_hidden_states": states, "encoder_hidden_states_mask": mask}
    states, mask = pipe.encode_prompt(["x"], True, "", max_sequence_length=length)[2:]
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


LEADING = {"stableaudio": 1}  # tokens before the stream's


class plain_edits:  # noqa: N801
    """Plain hooks on blocks' outputs: (block, item of the output or None, function)."""

    def __init__(self, model: interp.Model, edits: Any) -> None:
        self.model, self.edits, self.handles = model, edits, []

    def __enter__(self) -> None:
        for block, change in self.edits:
            described = self.model.anatomy.blocks[block]
            item = described.hidden["image"]

            def hook(m: Any, a: Any, kw: Any, output: Any, item: Any = item, change: Any = change) -> Any:
                given = kw.get("hidden_states", a[0] if a else None)
                if not isinstance(output, tuple):
                    first = LEADING.get(self.model.anatomy.family, 0)
                    return torch.cat([output[:, :first], change(output[:, first:], given)], dim=1)
                return tuple(change(v, given) if n == item else v for n, v in enumerate(output))

            module = self.model.pipe.transformer.get_submodule(described.path)
            self.handles.append(module.register_forward_hook(hook, with_kwargs=True))

    def __exit__(self, *given: Any) -> None:
        for handle in self.handles:
            handle.remove()


def zeroed(value: Tensor, given: Tensor) -> Tensor:
    value = value.clone()
    value[..., [2, 5]] = 0
    return value


def merged(model: interp.Model, output: Tensor, guided: Tensor) -> Tensor:
    """DiT: the guided noise beside the conditional variance."""
    return torch.cat([guided, output[:, guided.shape[1] :]], dim=1)


def first(value: Tensor, parts: int) -> Tensor:
    return value.chunk(parts, dim=1)[0] if parts > 1 else value


def nothing_left(model: interp.Model) -> bool:
    transformer = model.pipe.transformer
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in transformer.modules()]
    return transformer.__dict__[Slot.name].around is None and not sum(hooks)


def drawn(model: interp.Model, name: str, guidance: Any, **more: Any) -> np.ndarray:
    return interp.generate(model, prompts_for(name)[:2], steps=STEPS, batch_size=2, guidance=guidance, **more)[
        "latents"
    ].to_numpy()


DG = DetailGuidance(channels=[2, 5], block=1, scale=1.5)
CASES: dict[str, tuple[Any, Any]] = {
    "cfg": (ClassifierFree(3.0), lambda c, u, d: u + 3.0 * (c - u)),
    "dg": (DG, lambda c, u, d: c + 1.5 * (c - d)),
    "cfg+dg": (ClassifierFree(3.0) + DG, lambda c, u, d: c + 2.0 * (c - u) + 1.5 * (c - d)),  # equation 5
    "unconditional dg": (
        ClassifierFree(0.0) + DetailGuidance(channels=[2, 5], block=1, scale=1.5, of="uncond"),
        lambda c, u, d: u + 1.5 * (u - d),
    ),
}


BINNED = ("sana_model", "pixart_model", "sigma_model", "hunyuandit_model")
EVERY_CASE = list(itertools.product(CORE, CASES, [False, True]))
SOME_CASES = [*itertools.product([*FAMILIES, *LATER], ["cfg+dg"], [False]), ("wan_model", "unconditional dg", False)]


@pytest.mark.parametrize(
    ("name", "case", "sequential"),
    [*EVERY_CASE, *SOME_CASES, *((name, "cfg+dg", True) for name in ("wan_model", "flux2_model"))],
)
def test_guidance_equals_separate_calls_by_hand(name: str, case: str, sequential: bool, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    prepared = prepare(model, prompts_for(name)[:2], steps=STEPS)
    guidance, formula = CASES[case]
    parts = len(prepared.layout.prediction)

    def rule(cond: Any, uncond: Any, step: int) -> Tensor:
        c, u = cond(), uncond()
        d = uncond((1, zeroed)) if case.startswith("uncond") else cond((1, zeroed))
        guided = formula(first(c, parts), first(u, parts), first(d, parts))
        return merged(model, c, guided) if parts > 1 else guided

    expected = ByHand(model, name, prepared).latents(rule)
    found = drawn(model, name, guidance, sequential=sequential)
    assert_close(found, expected)
    assert not np.allclose(found, drawn(model, name, None), atol=1e-4)
    assert nothing_left(model)


@pytest.mark.parametrize("name", [name for name in ALL if name != "qwenimage_model"])
def test_cfg_equals_the_pipelines_own(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    pipe, prompts = model.pipe, prompts_for(name)[:2]
    given: dict[str, Any] = {"num_inference_steps": STEPS, "output_type": "np"}
    given["generator"] = [torch.Generator().manual_seed(0) for _ in prompts]
    if name == "dit_model":
        own = pipe(
            class_labels=[model.loaded.spec.prompts(pipe, [p], {})["class_labels"][0] for p in prompts],
            guidance_scale=3.0,
            **given,
        )
    elif name == "hunyuanimage_model":
        pipe.register_modules(guider=ClassifierFreeGuidance(guidance_scale=3.0))
        own = pipe(prompt=prompts, height=64, width=64, **given)
        pipe.register_modules(guider=None)
    elif name == "stableaudio_model":
        sounds = pipe(prompts, guidance_scale=3.0, **given).audios
        own = SimpleNamespace(images=np.stack([spectrogram(sound.astype(np.float64)) for sound in sounds]))
    elif name == "hidream_model":
        own = pipe(prompt=prompts, guidance_scale=3.0, max_sequence_length=8, **given)
    elif name == "hunyuanvideo_model":
        frames = {"num_frames": 5, "max_sequence_length": 8, "guidance_scale": 6.0}
        own = pipe(prompts, negative_prompt=["", ""], true_cfg_scale=3.0, height=64, width=64, **frames, **given)
    elif name in ("flux_model", "schnell_model"):
        size = {"height": 64, "width": 64, "max_sequence_length": model.settings()["max_sequence_length"]}
        own = pipe(prompts, negative_prompt=["", ""], true_cfg_scale=3.0, **size, **given)
    else:
        exact = {"use_resolution_binning": False} if name in BINNED else {}
        own = pipe(prompt=prompts, guidance_scale=3.0, height=64, width=64, **exact, **model.settings(), **given)
    found = interp.generate(model, prompts, steps=STEPS, batch_size=2, guidance=ClassifierFree(3.0))["image"].to_numpy()
    expected = own.frames[:, own.frames.shape[1] // 2] if hasattr(own, "frames") else own.images
    assert np.abs(found.astype(int) - (expected * 255).round().astype(int)).max() <= 1


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
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    own = model.pipe(
        prompts_for(name)[:2],
        negative_prompt=["", ""],
        true_cfg_scale=3.0,
        height=64,
        width=64,
        num_inference_steps=STEPS,
        generator=generators,
        output_type="latent",
        **model.settings(),
    ).images
    assert_close(own.numpy(), by_hand)
    assert not np.allclose(drawn(model, name, ClassifierFree(3.0)), by_hand, atol=1e-3)


def test_a_branch_that_forks_where_both_streams_are_one_state(flux2_model: interp.Model) -> None:
    prepared = prepare(flux2_model, prompts_for("flux2_model")[:2], steps=STEPS)
    text = prepared.layout.text_tokens

    def image_alone(value: Tensor, given: Tensor) -> Tensor:
        value = value.clone()
        value[:, text:, [2, 5]] = 0
        return value

    expected = ByHand(flux2_model, "flux2_model", prepared).latents(lambda c, u, step: c() + 1.5 * (c() - c((3, image_alone))))
    found = drawn(flux2_model, "flux2_model", DetailGuidance(channels=[2, 5], block=3, scale=1.5))
    assert_close(found, expected)


@pytest.mark.parametrize("name", [*CORE, "flux2_model"])
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
    assert not np.array_equal(windowed, drawn(tiny_model, name, DG))
    with pytest.raises(interp.InputError, match="one for each of 3 steps; got 2"):
        drawn(tiny_model, name, ClassifierFree([1.0, 2.0]))


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


@pytest.mark.parametrize("name", [*CORE, "flux2_model", "sana_model", "wan_model"])
def test_skipped_layers(name: str, request: pytest.FixtureRequest) -> None:
    """The image and text states pass a skipped block unchanged: written as hooks that hand on what the block was given."""
    model = request.getfixturevalue(name)
    prepared = prepare(model, prompts_for(name)[:2], steps=STEPS)
    parts = len(prepared.layout.prediction)
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
        guided = first(c, parts) + 2.0 * (first(c, parts) - first(d, parts))
        return merged(model, c, guided) if parts > 1 else guided

    expected = ByHand(model, name, prepared).latents(rule)
    guidance = SkipLayer(blocks=skipped, scale=2.0)
    assert_close(drawn(model, name, guidance), expected)
    assert_close(drawn(model, name, guidance, sequential=True), expected)


@pytest.mark.parametrize("name", ["tiny_model", "flux_model", "dit_model", "qwenimage_model", "sigma_model"])
def test_perturbed_attention(name: str, request: pytest.FixtureRequest) -> None:
    """Attention's result for image tokens replaced by their own values, in block 1 of a call of its own."""
    model = request.getfixturevalue(name)
    prepared = prepare(model, prompts_for(name)[:2], steps=STEPS)
    parts = len(prepared.layout.prediction)
    block = model.pipe.transformer.get_submodule(model.anatomy.blocks[1].path)
    attention = block.attn if hasattr(block, "attn") else block.attn1

    def rule(cond: Any, uncond: Any, step: int) -> Tensor:
        c, kept = cond(), []
        handles = [attention.to_v.register_forward_hook(lambda m, a, output: kept.append(output))]
        handles.append(attention.to_out[0].register_forward_pre_hook(lambda m, a: (kept[-1],)))
        d = cond()
        for handle in handles:
            handle.remove()
        guided = first(c, parts) + 2.0 * (first(c, parts) - first(d, parts))
        return merged(model, c, guided) if parts > 1 else guided

    expected = ByHand(model, name, prepared).latents(rule)
    found = drawn(model, name, PerturbedAttention(blocks=1, scale=2.0))
    assert_close(found, expected)
    assert not np.allclose(found, drawn(model, name, None), atol=1e-5)


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
    parts, sigmas = len(prepared.layout.prediction), [*prepared.schedule.sigmas, 0.0]
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
            guided = formula(first(c, parts), first(u, parts), step)
            return merged(model, c, guided) if parts > 1 else guided

        expected = ByHand(model, name, prepared).latents(rule)
        assert_close(drawn(model, name, method), expected)


def test_a_guided_trace_records_the_conditional_rows(tiny_model: interp.Model, tmp_path: Path) -> None:
    guidance = ClassifierFree(3.0) + DG
    with pytest.warns(interp.InterpWarning, match="guidance edits channels"):  # none is massive in a tiny random model
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


@pytest.mark.parametrize("name", ["tiny_model", "flux_model", "dit_model"])
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


def test_text_and_json(demo_model: interp.Model) -> None:
    found = parse("cfg:4+dg:1", demo_model)
    assert found == ClassifierFree(4) + DetailGuidance.preset("demo")
    assert "not from the paper" in found.methods[1].to_json()["source"]
    for text in (
        "cfg:4",
        "apg:4:eta=0.1:limit=2",
        "cfg0:3",
        "cfgpp:0.6",
        "slg:2.8:blocks=2-3:steps=0-4",
        "pag:3:blocks=1",
        "amplify:1.2",
    ):
        made = parse(text, demo_model)
        assert from_json(made.to_json()) == made, text
    with_model = parse("auto:1", demo_model, interp.load)
    assert with_model.methods[0].model.name == "demo-early"
    assert from_json(with_model.to_json(), interp.load).to_json() == with_model.to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dgg:1", "guidance must be a sum of cfg, dg"),
        ("cfg", "cfg needs a scale"),
        ("cfg:x", "scale of cfg must be a number; got 'x'"),
        ("cfg:nan", "scale of cfg must be a finite number"),
        ("cfg:4:colour=3", "cfg has no option 'colour'"),
        ("cfg:4+apg:3", "cfg and apg both set the base"),
        ("cfgpp:3", "scale of cfgpp must lie in 0..1"),
        ("slg:2", "slg needs blocks"),
        ("dg:1:channels=99:block=1", r"channels must lie in 0..95; got 99"),
        ("dg:1:channels=3:block=8", r"blocks must lie in 0..7; got 8"),
        ("slg:1:blocks=9", r"blocks of slg must lie in 0..7"),
        ("dg:1:edit=blur", "edit of dg must be a number"),
        ("dg:1:of=both", "of must be cond or uncond"),
        ("dg:1:stream=text:block=7", "block 7 has no text state"),
    ],
)
def test_bad_guidance_gets_one_clear_message(text: str, message: str, demo_model: interp.Model) -> None:
    with pytest.raises(interp.InputError, match=message):
        prepare(demo_model, ["a red circle"], guidance=text)


def test_guidance_that_a_family_cannot_have(dit_model: interp.Model, flux_model: interp.Model) -> None:
    with pytest.raises(interp.InputError, match="negative_prompt has no meaning"):
        interp.generate(dit_model, ["1"], guidance=ClassifierFree(4.0), negative_prompt="ugly", steps=1)
    with pytest.raises(interp.InputError, match="the attention of block 3 cannot be perturbed"):
        prepare(flux_model, ["a cat"], guidance=PerturbedAttention(blocks=3, scale=1.0))
    with pytest.raises(interp.InputError, match="no preset for"):
        prepare(flux_model, ["a cat"], guidance="dg:1")


def test_presets_name_their_source() -> None:
    sd3 = DetailGuidance.preset("sd3")
    assert (sd3.channels, sd3.block, sd3.scale) == ((810,), 6, 1.0)
    assert "2510.11538" in sd3.source
    assert DetailGuidance.preset("flux-dedistilled").channels == (154, 1446)
    assert "not from the paper" in DetailGuidance.preset("demo").source
    with pytest.raises(interp.InputError, match="the paper gives m = 7 alone"):
        DetailGuidance.preset("dit-xl")
    assert DetailGuidance.preset("dit-xl", channels=[4]).block == 7


def test_a_preset_is_checked_against_a_trace(demo_model: interp.Model, tmp_path: Path) -> None:
    run = interp.trace(demo_model, prompts_for("demo_model"), out=tmp_path / "run.zarr", steps=4)
    DetailGuidance.preset("demo", run=run)  # no warning: pytest would make it an error
    with pytest.warns(interp.InterpWarning, match=r"guidance edits channels \[3\]; massive in .* are \[29"):
        DetailGuidance.preset("demo", run=run, channels=[3])
    with pytest.warns(interp.InterpWarning, match=r"guidance edits channels \[3\]"):
        interp.trace(demo_model, ["a red circle"], out=tmp_path / "g.zarr", steps=4, guidance="dg:1:channels=3:block=5")


def test_auto_finds_what_was_planted(tmp_path: Path) -> None:
    from interp.testing import plant

    planted = plant("sd3", channels=(7, 11), block=2)
    run = interp.trace(planted.model, planted.prompts(4), out=tmp_path / "run.zarr", steps=3)
    found = DetailGuidance.auto(run, scale=2.0)
    assert (found.channels, found.block, found.scale) == ((7, 11), 2, 2.0)


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
