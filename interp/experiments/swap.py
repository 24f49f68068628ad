"""Timestep or text, by intervention: what the model is told is swapped at fixed latents, and the massive channels are measured.

A full factorial of single calls of the transformer, two levels each:

    timestep   the step's own, or the other step's
    latents    at the step's own noise level, or noised to the other step's (the picture and the noise stay the same)
    pooled     the prompt's own pooled text (or class), or another prompt's
    tokens     the prompt's own text tokens, or another prompt's

Along a sampling run timestep and noise level go together and cannot be told apart; here they can.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from interp.analysis import factorial
from interp.errors import InputError
from interp.experiments.choose import Ranked, rank
from interp.experiments.clean import Array, Clean, clean_run, measure
from interp.models import noise
from interp.plan import Record
from interp.sites import Site
from interp.store.opened import Run
from interp.store.results import write_dataset
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

FACTORS = ("timestep", "latents", "pooled", "tokens")
OnRow = Callable[[int, int], None]


def swap(
    model: Model | str | Path,
    prompts: Sequence[str] | str | Path,
    *,
    out: str | Path,
    channels: Sequence[int] | str | None = None,
    run: Run | str | Path | None = None,
    pair: tuple[int, int] | None = None,
    stream: str = "image",
    on_row: OnRow = lambda done, total: None,
    **arguments: Any,
) -> xr.Dataset:
    """Swap what the model is told, all combinations, and split what becomes of the channels' size.

    `pair` is two steps, by default one at a fifth and one at four fifths of the run; each is the other's other. Every prompt's
    partner is the next prompt.

    size                    (prompt, step, *factors, block, channel)   mean |x| over tokens; factors are `own`, `other`
    effect, _low, _high     (factor, step, block, set)                 log2 size, other less own, mean over the other factors
    share, _low, _high      (term, block, set)                         of the variance over the factorial, within prompts
    own_level               (block, set)                               size in latents noised to the own level, over the run's

    `set` is massive or control: as many random ordinary channels. The result is written to `out`.
    """
    prepared = prepare(model, prompts, record=Record(stats=False, gates=False), **arguments)
    rows, steps = prepared.plan.rows(), len(prepared.schedule.timesteps)
    if len({row.text for row in rows}) < 2:
        raise InputError("prompts must be two different ones or more: each is told another's text")
    chosen = pair or (steps // 5, min(4 * steps // 5, steps - 1))
    if len(set(chosen)) != 2 or not all(0 <= step < steps for step in chosen):
        raise InputError(f"pair must be two different steps in 0..{steps - 1}; got {list(chosen)}")
    ranked = rank(prepared, Path(out), channels=channels, run=run, stream=stream)
    sets = {"massive": ranked.massive, "control": ranked.random(prepared.plan.seed)}
    blocks = [number for number, block in enumerate(prepared.model.anatomy.blocks) if stream in block.hidden]
    sites = [Site(block, stream, "hidden") for block in blocks]
    factors = factors_of(prepared)
    kept = [channel for group in sets.values() for channel in group]
    cleans = [clean_run(prepared, row) for row in rows]
    sizes, levels = [], []
    for place, clean in enumerate(cleans):
        partner = _partner(cleans, place)
        for step, other in (chosen, chosen[::-1]):
            calls = [_call(prepared, clean, partner, step, other, factors, cell) for cell in _cells(factors)]
            states = measure(prepared, [*calls, clean.calls.arguments[step]], sites)
            table = np.array([[_size(state[site], kept) for site in sites] for state in states])
            sizes.append(table[:-1].reshape(*(2,) * len(factors), len(blocks), len(kept)))
            levels.append(table[0] / table[-1])
        on_row(place + 1, len(rows))
    shape = (len(rows), 2)
    found = factorial.split(
        np.stack(sizes).reshape(*shape, *sizes[0].shape),
        np.stack(levels).reshape(*shape, *levels[0].shape),
        factors=factors,
        texts=[row.text for row in rows],
        steps=list(chosen),
        blocks=blocks,
        channels=kept,
        sets=[name for name, group in sets.items() for _ in group],
    )
    found = found.assign_attrs(_said(prepared, ranked, stream, chosen))
    write_dataset(Path(out), found)
    return found


def factors_of(prepared: Prepared) -> tuple[str, ...]:
    """The factors that this model has."""
    spec, conditioning = prepared.model.loaded.spec, prepared.model.anatomy.conditioning
    has = {
        "pooled": conditioning is not None and "text" in conditioning.players,
        "tokens": spec.text_states is not None,
    }
    return tuple(factor for factor in FACTORS if has.get(factor, True))


def _cells(factors: Sequence[str]) -> list[tuple[int, ...]]:
    """0 for own, 1 for other, the last factor fastest."""
    return list(itertools.product((0, 1), repeat=len(factors)))


def _partner(cleans: Sequence[Clean], place: int) -> Clean:
    """The next row of another prompt."""
    order = [*cleans[place + 1 :], *cleans[:place]]
    return next(clean for clean in order if clean.row.text != cleans[place].row.text)


def _call(
    prepared: Prepared, clean: Clean, partner: Clean, step: int, other: int, factors: Sequence[str], cell: Sequence[int]
) -> dict[str, Any]:
    """The transformer's arguments in one cell of the factorial."""
    told = dict(zip(factors, cell, strict=True))
    anatomy, given = prepared.model.anatomy, dict(clean.calls.arguments[step])
    state = anatomy.row_inputs[0]
    level = other if told["latents"] else step
    given[state] = renoised(prepared, clean, level).to(given[state].dtype)
    if told["timestep"]:
        given["timestep"] = clean.calls.arguments[other]["timestep"]
    theirs = partner.calls.arguments[step]
    pooled = anatomy.conditioning.players.get("text") if anatomy.conditioning is not None else None
    if told.get("pooled") and pooled is not None:
        given[pooled] = theirs[pooled]
    if told.get("tokens"):
        names = [name for name in anatomy.row_inputs if name not in (state, "timestep", "guidance", pooled)]
        given.update({name: theirs[name] for name in names})
    return given


def renoised(prepared: Prepared, clean: Clean, step: int) -> Tensor:
    """The clean run's picture with the noise it began from, at a step's level: (1, ...)."""
    start = clean.calls.arguments[0][prepared.model.anatomy.row_inputs[0]]
    final = torch.from_numpy(clean.latents)[None].to(start.device, start.dtype)
    return noise.noised(prepared.layout.prediction, final, start, float(prepared.schedule.sigmas[step]))


def _size(state: Tensor, channels: Sequence[int]) -> Array:
    """Mean |x| over tokens of some channels."""
    sizes: Array = state[:, list(channels)].float().abs().mean(dim=0).numpy()
    return sizes


def _said(prepared: Prepared, ranked: Ranked, stream: str, pair: Sequence[int]) -> dict[str, Any]:
    return {
        "model": prepared.model.name,
        "weights": prepared.plan.weights,
        "channels": list(ranked.massive),
        "control": f"random ordinary channels {list(ranked.random(prepared.plan.seed))}",
        "stream": stream,
        "steps": f"{pair[0]} and {pair[1]} of {len(prepared.schedule.timesteps)}, each the other's other",
    }
