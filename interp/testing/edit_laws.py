"""Laws of edits and guidance: arms in one batch, separate calls of the plain transformer, the pipeline's own guidance."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.base.streams import REFERENCE
from interp.experiments.clean import clean_run, sample
from interp.experiments.generation import generate
from interp.guidance import ClassifierFree, DetailGuidance
from interp.guidance.pipes import guided
from interp.interventions import Scale, SwapConditioning, Zero, edited
from interp.interventions.forks import Forks, Slot, around_calls
from interp.testing.family import Family, FamilyFixtures, generators
from interp.testing.reference import Array
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

STEPS = 3
DETAIL = DetailGuidance(channels=[2, 5], block=1, scale=1.5)
Change = Callable[[Tensor, Tensor], Tensor]
"""(a block's output image state, its input state) -> a new state."""


class EditLaws(FamilyFixtures):
    """Rows that fork off a clean run, and guided rows, equal separate runs."""

    @property
    def steps(self) -> int:
        """Of a run in which the pipeline takes three."""
        return STEPS + self.leaves_out

    def test_arms_in_one_batch_equal_runs_of_their_own(self, model: Model) -> None:
        """Edits from the first or a later step and block on, of a gate, and of conditioning."""
        assert_arms_alone(prepare(model, list(self.prompts[:1]), steps=self.steps), arms_for(model, self.prompts[1]))

    def test_guidance_equals_separate_calls(self, model: Model) -> None:
        """Classifier-free and detail guidance together (arXiv 2510.11538, equation 5), to rounding."""
        if not self.unconditional:
            return
        prepared = prepare(model, list(self.prompts[:2]), steps=self.steps)
        by_hand = ByHand(self, model, prepared)
        expected = by_hand.guided(lambda c, u, d: c + 2.0 * (c - u) + 1.5 * (c - d))
        found = latents_of(model, self.prompts[:2], ClassifierFree(3.0) + DETAIL, steps=self.steps)
        assert_close(found, expected, flips=self.flips)
        assert not np.allclose(found, latents_of(model, self.prompts[:2], None, steps=self.steps), atol=1e-4)
        assert nothing_left(model)

    def test_classifier_free_guidance_is_the_pipelines_own(self, model: Model) -> None:
        """To one level of 255: two prompts, scale 3."""
        if not self.own_guidance:
            return
        found = generate(model, self.prompts[:2], steps=self.steps, batch_size=2, seeds="shared", guidance=ClassifierFree(3.0))[
            "image"
        ]
        assert np.abs(found.to_numpy().astype(int) - self.own_pictures(model, 3.0)).max() <= 1

    def test_detail_guidance_joins_the_pipelines_own(self, model: Model) -> None:
        """`interp.guided` on the plain pipeline, its own guidance at 3, to one level of 255; no hook remains."""
        if not self.guidable:
            return
        scale = 3.0 if self.own_guidance else 1.0
        before = self.own_pictures(model, scale)
        with guided(model.pipe, DETAIL):
            found = self.own_pictures(model, scale)
        guidance = ClassifierFree(scale) + DETAIL if self.unconditional else DETAIL
        expected = generate(model, self.prompts[:2], steps=self.steps, batch_size=2, seeds="shared", guidance=guidance)
        assert np.abs(found - expected["image"].to_numpy().astype(int)).max() <= 1
        assert np.abs(found - before).max() > 1
        np.testing.assert_array_equal(self.own_pictures(model, scale), before)

    def own_pictures(self, model: Model, scale: float) -> Array:
        """Pictures of the plain pipeline for two prompts, its own guidance at a scale."""
        settings = model.settings()
        height, width = model.sizes()
        size = {"height": height, "width": width} if model.loaded.spec.takes_size else {}
        more = {"num_inference_steps": self.steps, "generator": generators(2, 0), "output_type": "np", **size}
        return self.pictures(self.draw(model.pipe, self.prompts[:2], settings, scale, **more)).astype(int)


def assert_arms_alone(prepared: Prepared, arms: list[list[Any]]) -> None:
    """Arms of one row, drawn in one batch, equal separate runs to the rounding of another batch size. Each arm with edits
    differs from the clean run; the arm without edits equals it bit for bit.
    """
    model, row = prepared.model, prepared.plan.rows()[0]
    clean = clean_run(prepared, row)
    with Forks(model.anatomy, arms, clean.calls).drawing(model.pipe.transformer):
        _, latents = sample(prepared, [row] * len(arms))
    for number, edits in enumerate(arms):
        with edited(model, edits) if edits else contextlib.nullcontext():
            _, alone = sample(prepared, [row])
        assert_close(latents[number], alone[0], repr(edits))
        assert bool(edits) != np.array_equal(alone[0], clean.latents), edits
    np.testing.assert_array_equal(latents[arms.index([])], clean.latents)
    assert nothing_left(model)


def arms_for(model: Model, text: str) -> list[list[Any]]:
    """One arm of each kind: from the first block and step, a later block, a later step, of the last block, of a gate,
    of conditioning, and none.
    """
    last = len(model.anatomy.blocks) - 1
    late = min(2, last)
    arms: list[list[Any]] = [
        [Scale(1.5, channels=3, blocks=0)],
        [Zero(channels=[3, 5], blocks=1, steps=1), Scale(2.0, channels=1, blocks=sorted({late, last}), steps=2)],
        [Zero(channels=4, blocks=late, steps=2, tokens="0-3")],
        [Zero(channels=[3], blocks=last)],
        [],
    ]
    if model.anatomy.gates:
        arms.append([Scale(0.0, channels=[3, 5], blocks=1, at="alpha.attn")])
    conditioning = model.anatomy.conditioning
    pooled = conditioning is not None and conditioning.pooled and "text" in conditioning.players
    arms.append([SwapConditioning.of(model, prompt=text, pooled=pooled, tokens=not pooled, steps="1-2")])
    if len(model.anatomy.streams) > 1:
        arms.append([Zero(channels=[3, 5], blocks=1, stream="both", steps="0-1")])
    return arms


class ByHand:
    """Separate calls of the plain transformer with explicit arguments: the reference for every guidance."""

    def __init__(self, family: Family, model: Model, prepared: Any) -> None:
        self.model, self.prepared, self.family = model, prepared, family
        with torch.no_grad():
            self.null = family.no_prompt(model.pipe, prepared.plan.settings)

    def latents(self, rule: Callable[[Any, Any, int], Tensor]) -> Array:
        """Last latents with `rule(cond, uncond, step)` in place of every prediction; `cond` and `uncond` each make a separate
        call with the edits (block, change) that they receive.
        """

        def around(step: int, bound: dict[str, Any], run: Any) -> Tensor:
            rows = len(bound[self.model.anatomy.row_inputs[0]])
            wide = {name: value.expand(rows, *value.shape[1:]).contiguous() for name, value in self.null.items()}

            def call(arguments: Mapping[str, Any], *edits: tuple[int, Change]) -> Tensor:
                with plain_edits(self.prepared, edits, self.family):
                    result: Tensor = run(dict(arguments))
                return result

            return rule(lambda *edits: call(bound, *edits), lambda *edits: call({**bound, **wide}, *edits), step)

        with self.model.lock, around_calls(self.model.pipe.transformer, around, self.model.anatomy):
            return sample(self.prepared, self.prepared.plan.rows())[1]

    def guided(self, formula: Callable[[Tensor, Tensor, Tensor], Tensor], of: str = "cond") -> Array:
        """Last latents of formula(cond, uncond, degraded), the degraded branch with two channels of block 1 at 0."""

        def rule(cond: Any, uncond: Any, step: int) -> Tensor:
            c, u, d = cond(), uncond(), (uncond if of == "uncond" else cond)((1, zeroed))
            return self.merged(c, formula(self.first(c), self.first(u), self.first(d)))

        return self.latents(rule)

    def first(self, output: Tensor) -> Tensor:
        """The guided part of the transformer's output."""
        return output.chunk(len(self.prepared.layout.prediction), dim=1)[0]

    def merged(self, output: Tensor, first: Tensor) -> Tensor:
        """The output with its first part replaced: DiT keeps the conditional variance."""
        return torch.cat([first, output[:, first.shape[1] :]], dim=1)


@contextlib.contextmanager
def plain_edits(prepared: Prepared, edits: Any, family: Family) -> Iterator[None]:
    """Plain hooks that change the image state after a block."""
    model, tokens = prepared.model, prepared.layout.tokens(prepared.layout.generated)

    def hook(m: Any, args: Any, named: Any, output: Any, *, item: Any, change: Any) -> Any:
        given = named.get("hidden_states", args[0] if args else None)
        if isinstance(output, tuple):
            change = partial(of_drawn, change, tokens) if REFERENCE in model.anatomy.stream_names else change
            return tuple(change(value, given) if number == item else value for number, value in enumerate(output))
        return family.changed(output, lambda image: change(image, given), tokens)

    with contextlib.ExitStack() as hooks:
        for block, change in edits:
            described = model.anatomy.blocks[block]
            module = model.pipe.transformer.get_submodule(described.path)
            changed = partial(hook, item=described.hidden[model.anatomy.generated.name], change=change)
            hooks.enter_context(module.register_forward_hook(changed, with_kwargs=True))
        yield


def of_drawn(change: Change, tokens: int, value: Tensor, given: Tensor) -> Tensor:
    """A change of the generated tokens, where those of a reference follow."""
    return torch.cat([change(value[:, :tokens], given[:, :tokens]), value[:, tokens:]], dim=1)


def zeroed(value: Tensor, given: Tensor) -> Tensor:
    """Two channels set to 0."""
    value = value.clone()
    value[..., [2, 5]] = 0
    return value


def latents_of(model: Model, prompts: Any, guidance: Any, **more: Any) -> Array:
    """Last latents of a guided batch."""
    found = generate(model, prompts, **{"steps": STEPS, **more}, batch_size=len(prompts), guidance=guidance)
    return found["latents"].to_numpy()


def assert_close(found: Any, expected: Any, message: str = "", *, flips: float = 0.0) -> None:
    """Assert equality to the rounding of another batch composition; latents of a random model may reach hundreds. `flips` is
    the share of elements that may differ.
    """
    near = 2e-5 * max(1.0, float(np.abs(expected).max()) / 10)
    if np.isclose(found, expected, rtol=1e-4, atol=near).mean() < 1 - flips or not flips:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=near, err_msg=message)


def nothing_left(model: Model) -> bool:
    """Whether the transformer has no remaining hook and no replaced forward."""
    transformer = model.pipe.transformer
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in transformer.modules())
    slot = transformer.__dict__.get(Slot.name)
    return not hooks and (slot is None or slot.around is None)
