"""Timestep or text, by intervention: swap the conditioning at fixed latents, and measure the massive channels.

A full factorial of single transformer calls, with two levels per factor:

    timestep   the value of an early or a late step of the run
    latents    the run's picture and noise at the level of the early or the late step
    pooled     the prompt's own pooled text (or class), or another prompt's
    tokens     the prompt's own text tokens, or another prompt's

In a sampling run the timestep and the noise level change together, so their effects cannot be separated; here they can.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp import analysis, experiments
from interp.analysis.table import table
from interp.base.errors import InputError, ModelError
from interp.base.options import Channels, Indices, OneStream, Prompts
from interp.base.plan import as_json
from interp.base.sites import Site, parse_indices
from interp.base.streams import GENERATED
from interp.experiments.arguments import RankedBy, check_begins_with_noise
from interp.experiments.kind import Figure, Kind, Request, Shown

if TYPE_CHECKING:
    import xarray as xr

    from interp.store.schema import Array
    from interp.tracing.prepare import Prepared

FACTORS = ("timestep", "latents", "pooled", "tokens")


@dataclasses.dataclass(frozen=True)
class Options:
    """The two steps to compare. Every prompt is paired with the next one."""

    prompts: Prompts
    pair: Annotated[Indices, Doc('An early and a late step, "4,16". [default: at one and four fifths of the steps]')] = None
    stream: OneStream = GENERATED
    channels: Channels = None
    run: RankedBy = None


@dataclasses.dataclass(frozen=True)
class Factorial:
    """All combinations of a sample's and its partner's conditioning, one transformer call each."""

    prepared: Prepared
    pair: tuple[int, int]
    factors: tuple[str, ...]
    sites: tuple[Site, ...]
    channels: tuple[int, ...]

    def measure(self, place: int) -> dict[str, Array]:
        """One sample's factorial: sizes (*factors, block, channel) and levels (step, block, channel)."""
        import numpy as np

        rows = self.prepared.plan.rows()
        partners = (row for row in [*rows[place + 1 :], *rows[:place]] if row.text != rows[place].text)
        clean, partner = (experiments.clean.clean_run(self.prepared, row) for row in (rows[place], next(partners)))
        cells = list(itertools.product((0, 1), repeat=len(self.factors)))
        calls = [self._call(clean, partner, dict(zip(self.factors, cell, strict=True))) for cell in cells]
        own = [clean.calls.arguments[step] for step in self.pair]
        noised = [self._call(clean, clean, {"timestep": late, "latents": late}) for late in (0, 1)]
        states = experiments.clean.measure(self.prepared, [*calls, *noised, *own], self.sites)
        kept = list(self.channels)
        table = np.array([[here[site][:, kept].float().abs().mean(dim=0).numpy() for site in self.sites] for here in states])
        shape = (*(2,) * len(self.factors), len(self.sites), len(self.channels))
        return {"sizes": table[: len(cells)].reshape(shape), "levels": table[-4:-2] / table[-2:]}

    def _call(
        self, clean: experiments.clean.Clean, partner: experiments.clean.Clean, levels: Mapping[str, int]
    ) -> dict[str, Any]:
        """The transformer's arguments of one cell: level 0 is early or own, level 1 is late or other.

        The latents are the clean run's last ones at a step's noise level, with the run's initial noise.
        """
        import torch

        pair, anatomy, own = self.pair, self.prepared.model.anatomy, clean.calls.arguments[self.pair[0]]
        state, given = anatomy.row_inputs[0], dict(own)
        latents, start = torch.from_numpy(clean.latents)[None], clean.calls.arguments[0][state]
        given[state] = experiments.clean.noised(self.prepared, latents, start, pair[levels["latents"]]).to(own[state].dtype)
        time = anatomy.timestep.name
        given[time] = clean.calls.arguments[pair[levels["timestep"]]][time]
        theirs = partner.calls.arguments[pair[0]]
        pooled = anatomy.conditioning.players["text"] if anatomy.conditioning and "pooled" in self.factors else None
        if levels.get("pooled") and pooled is not None:
            given[pooled] = theirs[pooled]
        if levels.get("tokens"):
            names = [name for name in anatomy.row_inputs if name not in (state, time, "guidance", pooled)]
            given.update({name: theirs[name] for name in names})
        return given


def design(request: Request) -> experiments.design.Measuring:
    """One unit per sample."""
    options: Options = request.options
    given = parse_indices(options.pair, "pair")
    if given is not None and len(given) != 2:
        raise InputError(f"pair must be two steps, such as 4,16; got {options.pair!r}")
    prepared = request.prepare(options.prompts)
    check_begins_with_noise(prepared)
    anatomy = prepared.model.anatomy
    stream = anatomy.stream(options.stream).name
    if not anatomy.timestep.alone:
        raise ModelError(f"{prepared.model.name} takes two timesteps; one alone cannot be swapped")
    rows, steps = prepared.plan.rows(), len(prepared.schedule.timesteps)
    if len({row.text for row in rows}) < 2:
        raise InputError("prompts must be two or more different ones: each is swapped with another's text")
    early, late = given if given is not None else (steps // 5, min(4 * steps // 5, steps - 1))
    if not 0 <= early < late < steps:
        raise InputError(f"pair must be an early and a late step in 0..{steps - 1}; got {[early, late]}")
    ranked = request.rank(prepared, options.channels, stream)
    sets = {"massive": ranked.massive, "control": ranked.random(prepared.plan.seed)}
    kept = tuple(channel for group in sets.values() for channel in group)
    sites = tuple(Site(number, stream, "hidden") for number, block in enumerate(anatomy.blocks) if stream in block.hidden)
    own = Factorial(prepared, (early, late), factors_of(prepared), sites, kept)

    def collect(done: list[dict[str, Array]]) -> xr.Dataset:
        import numpy as np

        found = analysis.factorial.split(
            np.stack([part["sizes"] for part in done]),
            np.stack([part["levels"] for part in done]),
            factors=own.factors,
            texts=[row.text for row in rows],
            seeds=[row.seed for row in rows],
            steps=list(own.pair),
            blocks=[site.block for site in sites],
            channels=kept,
            sets=[name for name, group in sets.items() for _ in group],
        )
        attributes = {
            "model": prepared.model.name,
            "weights": prepared.plan.weights,
            "channels": list(ranked.massive),
            "control": f"random ordinary channels {list(sets['control'])}",
            "stream": stream,
            "steps": f"early {early}, late {late} of {steps}",
        }
        return found.assign_attrs(as_json(attributes, "attributes"))

    return request.measuring(
        prepared,
        {"pair": own.pair, "channels": kept, "stream": stream},
        measure_unit=own.measure,
        collect=collect,
        units=len(rows),
        forwards=len(rows) * (2 * steps + 2 ** len(own.factors) + 4),
    )


def factors_of(prepared: Prepared) -> tuple[str, ...]:
    """The factors that exist in this model."""
    spec, conditioning = prepared.model.loaded.spec, prepared.model.anatomy.conditioning
    has = {
        "pooled": conditioning is not None and conditioning.pooled and "text" in conditioning.players,
        "tokens": spec.text_states is not None,
    }
    return tuple(factor for factor in FACTORS if has.get(factor, True))


def _ordered(found: xr.Dataset) -> xr.Dataset:
    """The mean effect only of factors with ordered levels; NaN for the others."""
    return found.assign(effect=found["effect"].where(found["factor"].isin(["timestep", "latents"])))


def _main_terms(found: xr.Dataset) -> xr.Dataset:
    """The shares of single factors, and the sum of all interactions' shares."""
    import xarray as xr

    shares = found[["share", "share_low", "share_high"]]
    joint = found["term"].str.contains(":")
    others = shares[["share"]].sel(term=joint).sum("term").expand_dims(term=["all interactions"])
    return xr.concat([shares.sel(term=~joint), others], "term")


swap = Kind(
    "swap",
    "Swap timestep, noise level and text at fixed latents, and measure the effect on the massive channels.",
    Options,
    design,
    {
        "how far each swap moves the size (log2)": Shown("swap", table("swap", _ordered)),
        "shares": Shown("swap", table("swap_shares", _main_terms)),
    },
    {"swap": Figure("effects.swap", "swap")},
    papers=("attribution",),
)
