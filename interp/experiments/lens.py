"""Block lens: the picture the model would paint if it stopped at a block.

The image state that a block hands on goes through the output layer alone, gives a prediction, and with it an estimate of the
clean picture, x0 (not one step of the sampler), which the autoencoder decodes. Per block and step; also with massive channels
removed from that state. After the logit lens (nostalgebraist 2020), for a model whose output is a picture.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.analysis import lens as analysis
from interp.errors import InputError
from interp.experiments.choose import rank
from interp.experiments.clean import Array, clean_run, sample
from interp.experiments.draw import Arm, ByRows, OnProgress, Outputs, fill, measures
from interp.interventions.rows import Calls, around_calls
from interp.models import autoencoder, noise
from interp.models.anatomy import Anatomy, Lengths, bind_inputs, take_rows
from interp.models.quiet import quiet
from interp.plan import Record, Row, as_json
from interp.sites import Site, parse_indices, resolve_indices
from interp.store.experiment import Experiment
from interp.store.opened import Run, open_run
from interp.store.places import located
from interp.store.results import write_result
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

WHOLE, WITHOUT = "whole", "without massive channels"
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
class _Source:
    """Where a row's calls and states come from."""

    calls: Calls
    states: States
    image: Array
    latents: Array


def lens(
    model: Model | str | Path,
    prompts: Sequence[str] | str | Path | None = None,
    *,
    out: str | Path,
    stored: Run | str | Path | None = None,
    blocks: Sequence[int] | str | None = None,
    steps_shown: Sequence[int] | str | None = None,
    without: Sequence[int] | str | None = "massive",
    run: Run | str | Path | None = None,
    on_progress: OnProgress = lambda progress: None,
    **arguments: Any,
) -> Experiment:
    """Paint from every block at every step: live, or from a `stored` run's hidden states (every step, the last block too).

    `without` are channels removed from the states for a second picture of every cell: numbers, "massive" (those of `run`;
    without a run the first prompts are traced), or None. The result `lens` holds every cell's distance to the final picture.
    """
    kept = None if stored is None else stored if isinstance(stored, Run) else open_run(stored)
    if (kept is None) == (prompts is None):
        raise InputError("lens: give prompts to run live, or stored=RUN to paint from its hidden states; not both")
    if kept is not None and arguments:
        raise InputError(f"lens: {sorted(arguments)[0]} is the stored run's; leave it out")
    prepared = _as_stored(model, kept) if kept is not None else prepare(model, prompts or [], record=Record(), **arguments)
    anatomy = prepared.model.anatomy
    wanted = resolve_indices(parse_indices(blocks, "blocks"), len(anatomy.blocks), "blocks")
    steps = resolve_indices(parse_indices(steps_shown, "steps_shown"), len(prepared.schedule.timesteps), "steps_shown")
    removed: tuple[int, ...] = ()
    if without is not None:
        channels = None if isinstance(without, str) and without == "massive" else without
        removed = rank(prepared, located(out), channels=channels, run=run if run is not None else kept).massive
    kinds = [WHOLE, WITHOUT] if removed else [WHOLE]
    arms = [Arm("final", (), {"kind": "final", "block": -1, "step": -1})]
    arms += [
        Arm(f"{kind}, block {block}, step {step}", (), {"kind": kind, "block": block, "step": step})
        for kind in kinds
        for step in steps
        for block in wanted
    ]

    def draw_row(row: Row, pending: Sequence[int]) -> Iterator[Outputs]:
        source = _from_store(prepared, row, kept, steps, wanted) if kept is not None else _live(prepared, row, steps, wanted)
        unknown = measures(np.nan, np.nan, np.nan)  # no edited run: what is painted is a state, not a picture's end
        if 0 in pending:
            yield 0, {"image": source.image, "latents": source.latents}, unknown
        for step in steps:
            here = [number for number in pending if arms[number].labels["step"] == step]
            for start in range(0, len(here), BATCH):
                batch = here[start : start + BATCH]
                states = torch.stack([_cut(source.states[step, arms[n].labels["block"]], arms[n], removed) for n in batch])
                pictures, latents = paint(prepared, source.calls.arguments[step], step, states)
                for place, number in enumerate(batch):
                    yield number, {"image": pictures[place], "latents": latents[place]}, unknown

    parameters = {"without": removed, "stored": str(kept.path.name) if kept is not None else None}
    drawn = fill(
        prepared,
        arms,
        ByRows(prepared.plan.rows(), draw_row),
        experiment="lens",
        parameters=as_json(parameters, "parameters"),
        out=out,
        batch_size=1,
        on_progress=on_progress,
    )
    write_result(drawn.path, "lens", analysis.distances(drawn))
    return drawn


def _cut(state: Tensor, arm: Arm, removed: Sequence[int]) -> Tensor:
    """A state, without the removed channels where the arm says so."""
    if arm.labels["kind"] != WITHOUT:
        return state
    cut = state.clone()
    cut[:, list(removed)] = 0.0
    return cut


def _live(prepared: Prepared, row: Row, steps: Sequence[int], blocks: Sequence[int]) -> _Source:
    clean = clean_run(prepared, row, [(step, Site(block, "image", "hidden")) for step in steps for block in blocks])
    states = {(step, site.block): state for (step, site), state in clean.states.items()}
    return _Source(clean.calls, states, clean.image, clean.latents)


def _as_stored(model: Model | str | Path, kept: Run) -> Prepared:
    """The run's own plan, prepared again."""
    plan = kept.plan
    texts = list(dict.fromkeys(kept.prompts))
    settings = plan.get("settings") or None
    given = {name: plan[name] for name in ("steps", "seed", "repeats", "height", "width")}
    if kept.rows_done < kept.rows_total or len(texts) * plan["repeats"] != kept.rows_total:
        raise InputError(f"stored: {kept.path} must be finished and name every prompt once; trace it to its end")
    if plan.get("interventions"):
        raise InputError(f"stored: {kept.path} was traced with interventions; the lens replays unedited runs")
    prepared = prepare(model, texts, settings=settings, **given)
    if prepared.plan.weights != plan.get("weights"):
        raise InputError(f"stored: {kept.path} was traced with other weights than {prepared.model.name} has")
    states = kept.hidden
    last = len(prepared.model.anatomy.blocks) - 1
    held = states["image"]["hidden"] if "image" in states.children else None
    whole = held is not None and prepared.layout.tokens("image") == held.sizes["token"]
    if held is None or not whole or held.sizes["step"] != given["steps"] or last not in held["block"].to_numpy():
        raise InputError(f"stored: {kept.path} must keep every step, token and channel of the image stream, block {last} too")
    return prepared


def _from_store(prepared: Prepared, row: Row, kept: Run, steps: Sequence[int], blocks: Sequence[int]) -> _Source:
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
    return _Source(calls, states, images[0], latents[0])
