"""The output layer on its own: the picture that a state after any block predicts.

The output layer turns the state into a prediction. The prediction gives an estimate of the clean picture, x0 (not a step of the
sampler), which the autoencoder decodes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.base.errors import InputError
from interp.base.plan import Row
from interp.base.sites import Site
from interp.experiments.clean import Array, Clean, clean_run, recording, sample, without
from interp.experiments.draw import Arm, ByRow, Outputs, measures
from interp.models import autoencoder, noise
from interp.models.anatomy import Anatomy, Lengths, bind_inputs, take_rows
from interp.models.quiet import quiet
from interp.store.traced_run import Run
from interp.tracing.prepare import Prepared

BATCH = 16  # states per call of the output layer


@contextlib.contextmanager
def only_the_head(transformer: Any, anatomy: Anatomy, states: Tensor, lengths: Lengths) -> Iterator[None]:
    """Skip all blocks inside: the transformer's output layer receives `states`, (row, token, channel)."""
    patched = [transformer.get_submodule(block.path) for block in anatomy.blocks]
    shadowed = [module.__dict__.get("forward") for module in patched]
    for index, (module, block) in enumerate(zip(patched, anatomy.blocks, strict=True)):
        last = index == len(patched) - 1

        def forward(*given: Any, _module: Any = module, _block: Any = block, _last: bool = last, **named: Any) -> Any:
            bound = bind_inputs(_module, given, named)
            passed = _block.states_given(bound, lengths)
            if _last:
                passed[anatomy.generated.name] = states
            return _block.output_of(passed, bound, lengths)

        module.forward = forward
    try:
        yield
    finally:
        for module, before in zip(patched, shadowed, strict=True):
            del module.__dict__["forward"]
            if before is not None:
                module.forward = before


def predict(prepared: Prepared, arguments: dict[str, Any], states: Tensor) -> Tensor:
    """The transformer's prediction from image states after any block, (row, token, channel), with one call's conditioning."""
    transformer, anatomy, layout = prepared.model.pipe.transformer, prepared.model.anatomy, prepared.layout
    states = states.to(transformer.device, transformer.dtype)
    wide = {name: take_rows(arguments.get(name), [0] * len(states)) for name in anatomy.row_inputs}
    head = only_the_head(transformer, anatomy, states, layout.lengths)
    with prepared.model.lock, head, torch.no_grad(), quiet():
        output = transformer(**{**anatomy.as_called({**arguments, **wide}), "return_dict": False})
    return anatomy.first_prediction(output, arguments)[:, layout.span(len(layout.prediction))]


def paint(prepared: Prepared, arguments: dict[str, Any], step: int, states: Tensor) -> tuple[Array, Array]:
    """Pictures (row, y, x, rgb) uint8 and clean latents that states after a block predict."""
    output = predict(prepared, arguments, states)
    latents = arguments[prepared.model.anatomy.row_inputs[0]][:, prepared.layout.span()]
    clean = noise.denoised(prepared.layout.prediction, latents, output, float(prepared.schedule.sigmas[step]))
    plan, model = prepared.plan, prepared.model
    clean = clean * model.loaded.spec.levels.flow_size(model.pipe)
    pictures = autoencoder.decode(model.pipe, model.loaded.spec, clean, plan.height, plan.width)
    return (pictures.numpy() * 255).round().astype(np.uint8), clean.float().cpu().numpy()


@dataclasses.dataclass(frozen=True)
class Painted(ByRow):
    """Pictures from the states after blocks, whole or without some channels; the first arm is the final picture."""

    steps: Sequence[int]
    blocks: Sequence[int]
    removed: tuple[int, ...]
    """Channels that are zeroed in the arms with the label `cut`."""
    cut: str
    stored: Run | None
    """A run with stored hidden states; `None` to run the model."""

    def draw_row(self, row: Row, pending: Sequence[int]) -> Iterator[Outputs]:
        """The final picture, then the picture of every pending arm's state."""
        keep = [(step, self._site(block)) for step in self.steps for block in self.blocks]
        source = clean_run(self.prepared, row, keep) if self.stored is None else replay(self.prepared, row, self.stored, keep)
        unknown = measures(np.nan, np.nan, np.nan)  # these pictures come from states, not from edited runs
        if 0 in pending:
            yield 0, {"image": source.image, "latents": source.latents}, unknown
        for step in self.steps:
            here = [number for number in pending if self.arms[number].labels["step"] == step]
            for start in range(0, len(here), BATCH):
                batch = here[start : start + BATCH]
                states = torch.stack([self._state(source, step, self.arms[number]) for number in batch])
                pictures, latents = paint(self.prepared, source.calls.arguments[step], step, states)
                for place, number in enumerate(batch):
                    yield number, {"image": pictures[place], "latents": latents[place]}, unknown

    def row_forwards(self, pending: Sequence[int]) -> float:
        """Forward passes of the clean run. A stored run has none, and calls of the output layer alone count as none."""
        return 0.0 if self.stored is not None else float(len(self.prepared.schedule.timesteps))

    def _site(self, block: int) -> Site:
        return Site(block, self.prepared.model.anatomy.generated.name, "hidden")

    def _state(self, source: Clean, step: int, arm: Arm) -> Tensor:
        """The state of an arm's block, without the removed channels if the arm's label asks for it."""
        state = source.states[step, self._site(arm.labels["block"])]
        return without(state, self.removed) if arm.labels["kind"] == self.cut else state


def replay(prepared: Prepared, row: Row, stored: Run, keep: Sequence[tuple[int, Site]]) -> Clean:
    """Repeat a stored run without running a block: its last block's states go through the output layer."""
    held = stored.hidden[prepared.model.anatomy.generated.name]["hidden"].sel(prompt=row.index)
    lacking = [site.block for _, site in keep if site.block not in held["block"].to_numpy()]
    if lacking:
        raise InputError(f"stored: {stored.path} keeps no hidden states of block {lacking[0]}; give blocks that it keeps")
    transformer, anatomy = prepared.model.pipe.transformer, prepared.model.anatomy

    def state_of(step: int, block: int) -> Tensor:
        return torch.from_numpy(held.sel(step=step, block=block).to_numpy().copy())

    def answer(step: int, bound: dict[str, Any], run: Any) -> Tensor:
        given = state_of(step, len(anatomy.blocks) - 1)[None].to(transformer.device, transformer.dtype)
        with only_the_head(transformer, anatomy, given, prepared.layout.lengths):
            prediction: Tensor = run(bound)
        return prediction

    with recording(prepared, answer) as calls:
        images, latents = sample(prepared, [row])
    return Clean(row, calls, images[0], latents[0], {(step, site): state_of(step, site.block) for step, site in keep})
