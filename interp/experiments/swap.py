"""Timestep or text, by intervention: what the model is told is swapped at fixed latents, and the massive channels are measured.

A full factorial of single calls of the transformer, two levels each:

    timestep   the value of an early step of the run, or of a late one
    latents    the run's picture and noise at the level of the early step, or of the late one
    pooled     the prompt's own pooled text (or class), or another prompt's
    tokens     the prompt's own text tokens, or another prompt's

Along a sampling run timestep and noise level go together and cannot be told apart; here they can.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from interp.analysis import factorial
from interp.errors import InputError, ModelError
from interp.experiments.choose import Ranked, rank
from interp.experiments.clean import Array, Clean, clean_run, measure
from interp.models import noise
from interp.plan import Record, Row, as_json
from interp.provenance import provenance
from interp.sites import Site
from interp.store.opened import Run
from interp.store.parts import Parts
from interp.store.places import located
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

    `pair` is an early and a late step, by default at a fifth and at four fifths of the run. Every prompt's partner is the next
    prompt.

    size                    (prompt, *factors, block, channel)   mean |x| over tokens
    effect, _low, _high     (factor, block, set)                 log2 size, late less early (other less own), mean over the
                                                                 other factors
    moved, _low, _high      (factor, block, set)                 root mean square of that over prompts: how far the factor moves
                                                                 the size, whichever way; the mean of pooled and tokens is 0 by
                                                                 construction, every prompt being own once and other once
    share, _low, _high      (term, block, set)                   of the variance over the factorial, within prompts
    own_level               (step, block, set)                   size in latents noised to a step's level, over the run's there

    `set` is massive or control: as many random ordinary channels. The result is written to `out`.
    """
    prepared = prepare(model, prompts, record=Record(stats=False, gates=False), **arguments)
    if not prepared.model.anatomy.one_timestep:
        raise ModelError(
            f"{prepared.model.name} is told two timesteps, this step's and the next's; one alone cannot be swapped"
        )
    rows, steps = prepared.plan.rows(), len(prepared.schedule.timesteps)
    if len({row.text for row in rows}) < 2:
        raise InputError("prompts must be two different ones or more: each is told another's text")
    chosen = pair or (steps // 5, min(4 * steps // 5, steps - 1))
    if len(chosen) != 2 or not 0 <= chosen[0] < chosen[1] < steps:
        raise InputError(f"pair must be an early and a late step in 0..{steps - 1}; got {list(chosen)}")
    ranked = rank(prepared, located(out), channels=channels, run=run, stream=stream)
    sets = {"massive": ranked.massive, "control": ranked.random(prepared.plan.seed)}
    blocks = [number for number, block in enumerate(prepared.model.anatomy.blocks) if stream in block.hidden]
    sites = [Site(block, stream, "hidden") for block in blocks]
    factors = factors_of(prepared)
    kept = [channel for group in sets.values() for channel in group]
    plan = {
        **prepared.plan.to_json(),
        "swap": as_json({"pair": chosen, "channels": kept, "stream": stream}, "swap"),
    }
    parts = Parts(located(out), plan, "swap")
    if (finished := parts.finished()) is not None:
        return finished
    for place, row in enumerate(rows):
        if not parts.has(place):
            cleans = [clean_run(prepared, one) for one in (row, _partner(rows, place))]
            parts.write(place, _measured(prepared, cleans[0], cleans[1], chosen, factors, sites, kept))
        on_row(place + 1, len(rows))
    done = [parts.read(place) for place in range(len(rows))]
    sizes, levels = [part["sizes"] for part in done], [part["levels"] for part in done]
    found = factorial.split(
        np.stack(sizes),
        np.stack(levels),
        factors=factors,
        texts=[row.text for row in rows],
        seeds=[row.seed for row in rows],
        steps=list(chosen),
        blocks=blocks,
        channels=kept,
        sets=[name for name, group in sets.items() for _ in group],
    )
    found = found.assign_attrs(as_json(_said(prepared, ranked, stream, chosen), "attributes"))
    parts.finish(found, provenance(prepared.model, 1))
    return found


def _measured(
    prepared: Prepared,
    clean: Clean,
    partner: Clean,
    pair: tuple[int, int],
    factors: Sequence[str],
    sites: Sequence[Site],
    channels: Sequence[int],
) -> dict[str, Array]:
    """One row's factorial: sizes (*factors, block, channel), and levels (step, block, channel)."""
    cells = list(itertools.product((0, 1), repeat=len(factors)))
    calls = [_call(prepared, clean, partner, pair, dict(zip(factors, cell, strict=True))) for cell in cells]
    own = [clean.calls.arguments[step] for step in pair]
    noised = [_call(prepared, clean, clean, pair, {"timestep": late, "latents": late}) for late in (0, 1)]
    states = measure(prepared, [*calls, *noised, *own], sites)
    table = np.array([[_size(state[site], channels) for site in sites] for state in states])
    sizes = table[: len(cells)].reshape(*(2,) * len(factors), len(sites), len(channels))
    return {"sizes": sizes, "levels": table[-4:-2] / table[-2:]}


def factors_of(prepared: Prepared) -> tuple[str, ...]:
    """The factors that this model has."""
    spec, conditioning = prepared.model.loaded.spec, prepared.model.anatomy.conditioning
    has = {
        "pooled": conditioning is not None and conditioning.pooled and "text" in conditioning.players,
        "tokens": spec.text_states is not None,
    }
    return tuple(factor for factor in FACTORS if has.get(factor, True))


def _partner(rows: Sequence[Row], place: int) -> Row:
    """The next row of another prompt."""
    order = [*rows[place + 1 :], *rows[:place]]
    return next(row for row in order if row.text != rows[place].text)


def _call(prepared: Prepared, clean: Clean, partner: Clean, pair: tuple[int, int], told: Mapping[str, int]) -> dict[str, Any]:
    """The transformer's arguments in one cell of the factorial: 0 for early and own, 1 for late and other."""
    anatomy, own = prepared.model.anatomy, clean.calls.arguments[pair[0]]
    state, given = anatomy.row_inputs[0], dict(own)
    given[state] = renoised(prepared, clean, pair[told["latents"]]).to(own[state].dtype)
    given[anatomy.timestep] = clean.calls.arguments[pair[told["timestep"]]][anatomy.timestep]
    theirs = partner.calls.arguments[pair[0]]
    conditioning = anatomy.conditioning
    pooled = conditioning.players.get("text") if conditioning is not None and conditioning.pooled else None
    if told.get("pooled") and pooled is not None:
        given[pooled] = theirs[pooled]
    if told.get("tokens"):
        names = [name for name in anatomy.row_inputs if name not in (state, anatomy.timestep, "guidance", pooled)]
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


def _said(prepared: Prepared, ranked: Ranked, stream: str, pair: tuple[int, int]) -> dict[str, Any]:
    return {
        "model": prepared.model.name,
        "weights": prepared.plan.weights,
        "channels": list(ranked.massive),
        "control": f"random ordinary channels {list(ranked.random(prepared.plan.seed))}",
        "stream": stream,
        "steps": f"early {pair[0]}, late {pair[1]} of {len(prepared.schedule.timesteps)}",
    }
