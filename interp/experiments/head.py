"""The output layer by itself: the picture that a state after any block leads to.

The state goes through the output layer alone, gives a prediction, and with it an estimate of the clean picture, x0 (not one
step of the sampler), which the autoencoder decodes.
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
from interp.experiments.clean import Array, clean_run, sample
from interp.experiments.draw import Arm, ByRow, Outputs, measures
from interp.interventions.forks import Calls, around_calls
from interp.models import autoencoder, noise
from interp.models.anatomy import Anatomy, Lengths, bind_inputs, take_rows
from interp.models.quiet import quiet
from interp.store.traced_run import Run
from interp.tracing.prepare import Prepared

BATCH = 16  # states through the output layer together
States = dict[tuple[int, int], Tensor]
"""By (step, block): (token, channel)."""


@contextlib.contextmanager
def only_the_head(transformer: Any, anatomy: Anatomy, states: Tensor, lengths: Lengths) -> Iterator[None]:
    """Inside, no block runs: the transformer's output layer is given `states`, (row, token, channel)."""
    patched = [transformer.get_submodule(block.path) for block in anatomy.blocks]
    shadowed = [module.__dict__.get("forward") for module in patched]
    for index, (module, block) in enumerate(zip(patched, anatomy.blocks, strict=True)):
        last = index == len(patched) - 1

        def forward(*given: Any, _module: Any = module, _block: Any = block, _last: bool = last, **named: Any) -> Any:
            bound = bind_inputs(_module, given, named)
            passed = _block.states_given(bound, lengths)
            if _last:
                passed["image"] = states
            return _block.output_of(passed)

        module.forward = forward
    try:
        yield
    finally:
        for module, before in zip(patched, shadowed, strict=True):
            del module.__dict__["forward"]
            if before is not None:
                module.forward = before


def predict(prepared: Prepared, arguments: dict[str, Any], states: Tensor) -> Tensor:
    """The transformer's output from image states after any block, (row, token, channel), in one call's conditioning."""
    transformer, anatomy = prepared.model.pipe.transformer, prepared.model.anatomy
    states = states.to(transformer.device, transformer.dtype)
    wide = {name: take_rows(arguments.get(name), [0] * len(states)) for name in anatomy.row_inputs}
    head = only_the_head(transformer, anatomy, states, prepared.layout.lengths)
    with prepared.model.lock, head, torch.no_grad(), quiet():
        output: Tensor = transformer(**{**anatomy.as_called({**arguments, **wide}), "return_dict": False})[0]
    return output


def paint(prepared: Prepared, arguments: dict[str, Any], step: int, states: Tensor) -> tuple[Array, Array]:
    """Pictures (row, y, x, rgb) uint8 and clean latents that states after a block would lead to."""
    output = predict(prepared, arguments, states)
    latents = arguments[prepared.model.anatomy.row_inputs[0]]
    clean = noise.denoised(prepared.layout.prediction, latents, output, float(prepared.schedule.sigmas[step]))
    plan, model = prepared.plan, prepared.model
    pictures = autoencoder.decode(model.pipe, model.loaded.spec, clean, plan.height, plan.width)
    return (pictures.numpy() * 255).round().astype(np.uint8), clean.float().cpu().numpy()


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a row's calls and states come from."""

    calls: Calls
    states: States
    image: Array
    latents: Array


@dataclasses.dataclass(frozen=True)
class Painted(ByRow):
    """Pictures from the states after blocks, whole or without some channels; the first arm is the final picture."""

    steps: Sequence[int]
    blocks: Sequence[int]
    removed: tuple[int, ...]
    """Channels that the arms labelled `cut` are without."""
    cut: str
    stored: Run | None
    """A run whose hidden states are used; `None` to run live."""

    def draw_row(self, row: Row, pending: Sequence[int]) -> Iterator[Outputs]:
        """The final picture, and what every block would paint."""
        source = (
            self._live(row) if self.stored is None else from_store(self.prepared, row, self.stored, self.steps, self.blocks)
        )
        unknown = measures(np.nan, np.nan, np.nan)  # no edited run: what is painted is a state, not a picture's end
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
        """The clean run; of a stored one, and of what is painted, the output layer alone, which counts as none."""
        return 0.0 if self.stored is not None else float(len(self.prepared.schedule.timesteps))

    def _state(self, source: Source, step: int, arm: Arm) -> Tensor:
        """A state, without the removed channels where the arm says so."""
        state = source.states[step, arm.labels["block"]]
        if arm.labels["kind"] != self.cut:
            return state
        cut = state.clone()
        cut[:, list(self.removed)] = 0.0
        return cut

    def _live(self, row: Row) -> Source:
        keep = [(step, Site(block, "image", "hidden")) for step in self.steps for block in self.blocks]
        clean = clean_run(self.prepared, row, keep)
        states = {(step, site.block): state for (step, site), state in clean.states.items()}
        return Source(clean.calls, states, clean.image, clean.latents)


def from_store(prepared: Prepared, row: Row, kept: Run, steps: Sequence[int], blocks: Sequence[int]) -> Source:
    """The run again without running a block: its last block's states are put through the output layer."""
    held = kept.hidden["image"]["hidden"].sel(prompt=row.index)
    lacking = [block for block in blocks if block not in held["block"].to_numpy()]
    if lacking:
        raise InputError(f"stored: {kept.path} keeps no hidden states of block {lacking[0]}; give blocks that it keeps")
    last, calls = len(prepared.model.anatomy.blocks) - 1, Calls()

    def answer(step: int, bound: dict[str, Any], run: Any) -> Tensor:
        state = torch.from_numpy(held.sel(step=step, block=last).to_numpy().copy())[None]
        transformer, anatomy = prepared.model.pipe.transformer, prepared.model.anatomy
        given = state.to(transformer.device, transformer.dtype)
        with only_the_head(transformer, anatomy, given, prepared.layout.lengths):
            prediction: Tensor = run(bound)
        calls.arguments.append(bound)
        calls.predictions.append(prediction)
        return prediction

    with prepared.model.lock, around_calls(prepared.model.pipe.transformer, answer, prepared.model.anatomy):
        images, latents = sample(prepared, [row])
    states = {
        (step, block): torch.from_numpy(held.sel(step=step, block=block).to_numpy().copy())
        for step in steps
        for block in blocks
    }
    return Source(calls, states, images[0], latents[0])
