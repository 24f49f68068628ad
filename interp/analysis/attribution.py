"""Shares of timestep and text in a channel's variance. DG Fig. 4b.

Observational: prompts and seeds are crossed with the steps of one sampling run, where the timestep is also the noise level.
The exact answer for gates is `interp.gates`; the interventional one needs a model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import factorial, intervals, massive, sampled, sources
from interp.analysis.result import Estimate, result
from interp.base.errors import InputError
from interp.base.streams import GENERATED
from interp.store.schema import Array

MARGIN = 0.05  # shares below it are negligible
TERMS = ("timestep", "prompt", "seed", "timestep:prompt", "timestep:seed", "prompt:seed", "timestep:prompt:seed")
"""In the order of `factorial.terms_of`."""
CONFOUNDED = "in a sampling run the timestep is also the noise level, and the split depends on the grid of steps"


def decompose(
    source: sources.Source,
    channels: Sequence[int] | str | None = None,
    *,
    stream: str = GENERATED,
    quantity: str = "magnitude",
    gate: str | None = None,
    margin: float = MARGIN,
) -> xr.Dataset:
    """Variance of a channel's mean |x| (or of its alpha) split into timestep, prompt, seed and their interactions.

    share, share_low, share_high      (term, block, channel)  of the variance; the prompt terms corrected for few prompts
    eta2, omega2                      (term, block, channel)  as in an analysis of variance of these samples; omega2 with the
                                                              highest interaction as its error
    any_prompt, _low, _high           (block, channel)        sum of all terms with the prompt
    prompt_negligible                 (block, channel)        equivalence test at 5%: `any_prompt` is below the margin; False
                                                              below three texts, for which there is no interval
    ordinary                          (term, block)           the control: mean share over the other channels

    Where prompts share seeds, those that every text has are used, each once, and `seed` and its interactions are over these.
    Where every text has its own, `seed` and `timestep:seed` are within texts; with one a text, they are part of the prompt's.
    """
    stream = sources.stream_of(source, stream)
    if quantity not in ("magnitude", "alpha"):
        raise InputError(f"quantity must be magnitude or alpha; got {quantity!r}")
    if not 0 < margin < 1:
        raise InputError(f"margin must lie between 0 and 1; got {margin!r}")
    chosen = massive.channels_of(source, channels, stream)
    data = _quantity(source, stream, quantity, gate)
    cells, split = table_of(data)
    if data.sizes["step"] < 2:
        raise InputError("steps: timestep against text needs at least two steps; this run has one")
    at = np.flatnonzero(np.isin(data["channel"].to_numpy(), chosen))
    every, here, values = _one_pass(split, data, cells, at)
    eta, omega = effect_sizes(split, values)
    axes, units = ("term", "block", "channel"), sampled.Sampled.single(split.texts)
    _, most = intervals.interval(here, units, split.any_prompt, scale="share", level=0.9)
    return result(
        "attribution",
        {
            "share": (axes, Estimate.of_mean(here, units, split.shares, "share")),
            "eta2": (axes, eta),
            "omega2": (axes, omega),
            "any_prompt": (axes[1:], Estimate.of_mean(here, units, split.any_prompt, "share")),
            "prompt_negligible": (axes[1:], most < margin),
            "ordinary": xr.DataArray(np.delete(split.shares(every)[0], at, axis=-1), dims=axes).mean("channel"),
        },
        {"term": list(split.terms), "channel": chosen, **sources.along(data, "block")},
        averaged_over="tokens" if quantity == "magnitude" else "nothing",
        interval=units.said("share") + ("" if split.nested else "; given these seeds"),
        control="ordinary: mean over the other channels",
        note=CONFOUNDED + _one_seed(split) + _no_text(source, quantity),
        stream=stream,
        channels=chosen,
        quantity=quantity if gate is None else f"{quantity}.{gate}",
        margin=margin,
        prompts=split.texts,
        seeds=split.seeds,
        timesteps=", ".join(f"{value:g}" for value in data["timestep"].to_numpy()) if "timestep" in data.coords else "",
        **sources.facts_of(source),
    )


def _quantity(source: sources.Source, stream: str, quantity: str, gate: str | None) -> xr.DataArray:
    if quantity == "magnitude":
        return sources.statistics(source)["mean_abs"].sel(stream=stream)
    alpha = sources.gates(source)["alpha"].sel(stream=stream)
    gates = [str(value) for value in alpha["gate"].to_numpy()]
    if gate not in gates:
        raise InputError(f"gate must be one of {', '.join(gates)}; got {gate!r}")
    return alpha.sel(gate=gate)


def _one_seed(split: Split) -> str:
    """A note where noise cannot be told from text."""
    if split.nested and split.seeds == 1:
        return "; one seed of its own for every prompt: the prompt's terms hold the noise's too, and are upper bounds"
    return ""


def _no_text(source: sources.Source, quantity: str) -> str:
    """A note where the text cannot enter the gates at all: a share of zero is then no finding."""
    if quantity != "alpha" or isinstance(source, xr.Dataset):
        return ""
    players = source.provenance.get("gates_set_by")
    return "" if players is None or "text" in players else "; in this model text cannot enter the gates at all"


def table_of(data: xr.DataArray) -> tuple[Array, Split]:
    """Rows as a (text, seed) table, and its design: the seeds that all texts share, or as many of its own for every text."""
    table: dict[Any, dict[Any, int]] = {}
    for row, (text, seed) in enumerate(zip(*sources.labels(data), strict=True)):
        table.setdefault(text, {}).setdefault(seed, row)
    if len(table) < 2:
        raise InputError("prompts: timestep against text needs at least two different prompt texts; this run has one done")
    common = sorted(set.intersection(*(set(rows) for rows in table.values())))
    count = len(common) or min(len(rows) for rows in table.values())
    cells = np.array([[rows[seed] for seed in common or sorted(rows)[:count]] for rows in table.values()])
    return cells, Split(len(table), count, data.sizes["step"], nested=not common)


def _one_pass(split: Split, data: xr.DataArray, cells: Array, at: Array) -> tuple[Array, Array, Array]:
    """Read every row once: the mean over texts of all channels' features, (1, feature, block, channel); the chosen channels'
    features of every text; and their values, (text, seed, step, block, channel).
    """
    ordered = data.isel(prompt=cells.ravel()).transpose("prompt", "step", "block", "channel")
    passing = sources.rows(ordered)
    total, shift, here, values = None, None, [], []
    for _ in range(split.texts):
        text = np.stack([next(passing) for _ in range(split.seeds)])[None]
        shift = text.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32) if shift is None else shift
        features = split.features(text - shift)
        chosen = text[..., at].astype(np.float64)
        here.append(split.features(chosen - shift[..., at]))
        values.append(chosen[0])
        total = features.astype(np.float64) if total is None else np.add(total, features, out=total)
    assert total is not None
    return total / split.texts, np.concatenate(here), np.stack(values)


@dataclasses.dataclass(frozen=True)
class Split:
    """Variance components of (text, seed, step, channel) values as a function of means over texts of `features`."""

    texts: int
    seeds: int
    steps: int
    nested: bool
    """Every text has seeds of its own; else all texts have the same ones."""

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms that this design tells apart; where seeds are nested, `seed` is within prompts."""
        if self.seeds == 1:
            return ("timestep", "prompt", "timestep:prompt")
        return ("timestep", "prompt", "seed", "timestep:prompt", "timestep:seed") if self.nested else TERMS

    def features(self, shifted: Array) -> Array:
        """(text, feature, ...) of (text, seed, step, ...) less a constant near the mean: each text's cells, and the squares of
        its mean, of its means per seed, of its means per step, and of its cells. Means over texts of these are all that the
        components need.
        """
        per_seed, per_step = shifted.mean(axis=2), shifted.mean(axis=1)
        squares = [
            per_seed.mean(axis=1) ** 2,
            (per_seed**2).mean(axis=1),
            (per_step**2).mean(axis=1),
            np.einsum("ast...,ast...->a...", shifted, shifted) / (self.seeds * self.steps),
        ]
        return np.concatenate([shifted.reshape(len(shifted), -1, *shifted.shape[3:]), np.stack(squares, axis=1)], axis=1)

    def components(self, means: Array) -> Array:
        """(sample, term, ...) variances at or above 0, in the order of `terms`, from (sample, feature, ...) means of texts."""
        cells = means[:, :-4].reshape(len(means), self.seeds, self.steps, *means.shape[2:])
        own, by_seed, by_step, each = (means[:, place] for place in (-4, -3, -2, -1))
        found = (self._nested if self.nested else self._crossed)(cells, own, by_seed, by_step, each)
        return np.asarray(np.maximum(np.stack([found[term] for term in self.terms], axis=1), 0.0))

    def _nested(self, cells: Array, own: Array, by_seed: Array, by_step: Array, each: Array) -> dict[str, Array]:
        """Seeds within texts: their number in one text means nothing in another."""
        many_texts, many_seeds = self.texts / (self.texts - 1), self.seeds / max(self.seeds - 1, 1)
        steps = cells.mean(axis=1)  # (sample, step, ...), over texts and seeds
        grand = steps.mean(axis=1)
        seed, step_seed = many_seeds * (by_seed - own), many_seeds * (each - by_seed - by_step + own)
        between = many_texts * (own - grand**2)
        step_between = many_texts * (by_step - own - ((steps**2).mean(axis=1) - grand**2))
        step = steps.var(axis=1) - step_between / self.texts
        prompt, step_prompt = between - seed / self.seeds, step_between - step_seed / self.seeds
        found = {"timestep": step, "prompt": prompt, "seed": seed}
        return found | {"timestep:prompt": step_prompt, "timestep:seed": step_seed}

    def _crossed(self, cells: Array, own: Array, by_seed: Array, by_step: Array, each: Array) -> dict[str, Array]:
        """The same seeds in every text."""
        grand, seed_means, step_means = cells.mean(axis=(1, 2)), cells.mean(axis=2), cells.mean(axis=1)
        seed, step = seed_means.var(axis=1), step_means.var(axis=1)
        step_seed = cells.var(axis=(1, 2)) - seed - step
        prompt = own - grand**2
        prompt_seed = by_seed - (seed_means**2).mean(axis=1) - prompt
        step_prompt = by_step - (step_means**2).mean(axis=1) - prompt
        rest = each - (cells**2).mean(axis=(1, 2)) - prompt - prompt_seed - step_prompt
        many = self.texts / (self.texts - 1)
        prompt, step_prompt, prompt_seed, rest = (many * part for part in (prompt, step_prompt, prompt_seed, rest))
        # a mean over texts still has 1 / texts of the variance between texts
        step, seed, step_seed = step - step_prompt / self.texts, seed - prompt_seed / self.texts, step_seed - rest / self.texts
        return dict(zip(TERMS, (step, prompt, seed, step_prompt, step_seed, prompt_seed, rest), strict=True))

    def shares(self, means: Array) -> Array:
        """Components over their sum; NaN without any variance."""
        parts = self.components(means)
        total = parts.sum(axis=1, keepdims=True)
        return np.asarray(np.divide(parts, total, out=np.full(parts.shape, np.nan), where=total > 0))

    def any_prompt(self, means: Array) -> Array:
        """The sum of all terms with the prompt."""
        places = [number for number, term in enumerate(self.terms) if "prompt" in term]
        return np.asarray(self.shares(means)[:, places].sum(axis=1))

    def gathered(self, sizes: Array) -> Array:
        """(term, ...) of `TERMS`, as sums of squares or degrees of freedom, for this design's terms: where seeds are nested, a
        seed within a prompt is seed and prompt:seed together.
        """
        parts = dict(zip(TERMS, sizes, strict=True))
        if self.nested:
            parts["seed"] = parts["seed"] + parts["prompt:seed"]
            parts["timestep:seed"] = parts["timestep:seed"] + parts["timestep:prompt:seed"]
        return np.stack([parts[term] for term in self.terms])


def effect_sizes(split: Split, values: Array) -> tuple[Array, Array]:
    """eta^2 and omega^2, (term, ...), of (text, seed, step, ...): sums of squares of an analysis of variance."""
    grid = np.moveaxis(values, 2, 0)
    sizes = dict(zip(TERMS, grid.shape[:3], strict=False))
    squares = split.gathered(factorial.split_grid(grid, 3) * np.prod(grid.shape[:3]))
    freedom = split.gathered(np.array([float(np.prod([sizes[name] - 1 for name in term.split(":")])) for term in TERMS]))
    total = squares.sum(axis=0)
    error = squares[-1] / max(freedom[-1], 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        omega = [(square - free * error) / (total + error) for square, free in zip(squares, freedom, strict=True)]
        return squares / total, np.stack(omega)
