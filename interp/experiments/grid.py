"""Alpha tabulated over prompts x timesteps without running a block: the exact answer to "timestep or text".

Alpha depends on the conditioning alone, so the whole grid can be had, also far from the steps of one sampling run, where the
timestep and the noise level could not be told apart. Main effects and interactions are of the full grid: a function of
independent players splits into them exactly (Hoeffding 1948; Sobol 1993), and a player's Shapley share is S_i + S_ij / 2 + ...
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from interp.analysis import intervals, variance
from interp.base.errors import InputError, ModelError
from interp.base.prompts import check_prompts, read_prompts
from interp.base.sites import Site, resolve_indices
from interp.models.anatomy import Conditioning, add_rows, take_rows
from interp.models.identity import fingerprint
from interp.models.quiet import quiet
from interp.tracing.model import Model

Array = NDArray[Any]
ENCODE_BATCH = 32  # prompts encoded together
GRID_BATCH = 256  # cells computed together
TIMESTEPS = 50


def tabulate(
    model: Model,
    prompts: Sequence[str] | str | Path,
    channels: Sequence[int] | None = None,
    *,
    timesteps: Sequence[float] | int = TIMESTEPS,
    guidance: Sequence[float] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Alpha of every gate over the full grid, and how much of its variance each player explains; see `Grid.collect`."""
    grid = Grid.build(model, prompts, channels, timesteps=timesteps, guidance=guidance, settings=settings)
    return grid.collect([grid.measure(unit) for unit in range(grid.units)])


def _timesteps(given: Sequence[float] | int) -> Array:
    """Values in 0..1000; a count gives the middles of as many equal parts, so that neither end has a special weight."""
    if isinstance(given, int):
        if given < 2:
            raise InputError(f"timesteps must be at least 2; got {given}")
        return (np.arange(given) + 0.5) * 1000.0 / given
    values = np.array(sorted(set(given)), np.float64)
    if values.size < 2 or values.min() < 0 or values.max() > 1000:
        raise InputError(f"timesteps must be two or more different values in 0..1000; got {list(given)[:5]}")
    return values


class Grid:
    """Players, their values, and alpha's sites."""

    def __init__(
        self,
        model: Model,
        conditioning: Conditioning,
        text: Mapping[str, Any],
        values: dict[str, Array],
        texts: list[str],
        channels: tuple[int, ...] | None,
    ) -> None:
        self.model, self.conditioning, self.texts, self.text = model, conditioning, texts, text
        self.values, self.channels = values, channels
        self.players = ["text", *values] if "text" in conditioning.players else list(values)
        self.sites = [
            (modulation, number, site)
            for index, block in enumerate(model.anatomy.blocks)
            for modulation, number, site in block.chunk_sites(index)
            if site.kind == "alpha"
        ]

    @classmethod
    def build(
        cls,
        model: Model,
        prompts: Sequence[str] | str | Path,
        channels: Sequence[int] | None = None,
        *,
        timesteps: Sequence[float] | int = TIMESTEPS,
        guidance: Sequence[float] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Grid:
        """Encode the prompts and check what is asked.

        `timesteps` are values in the scheduler's units, or how many evenly spaced ones (the middle of each part of 0..1000);
        `guidance` is a list of values of an embedded guidance, where the model has one.
        """
        conditioning, spec = model.anatomy.conditioning, model.loaded.spec
        if not model.anatomy.gates:
            raise ModelError(f"{model.name} has no gates: no alpha multiplies what its blocks add")
        if conditioning is None or spec.conditions is None:
            raise ModelError(
                f"the anatomy of {model.name} does not say what sets its gates; trace it and use `interp attribute`"
            )
        wanted = None if channels is None else resolve_indices(list(channels), model.anatomy.channels, "channels")
        texts = list(dict.fromkeys(read_prompts(prompts) if isinstance(prompts, str | Path) else check_prompts(prompts)))
        chosen = model.settings(None if settings is None else dict(settings))
        batches = [texts[start : start + ENCODE_BATCH] for start in range(0, len(texts), ENCODE_BATCH)]
        with torch.no_grad(), quiet():
            encoded = [spec.conditions(model.pipe, batch, chosen) for batch in batches]
        text = {name: functools.reduce(add_rows, [part[name] for part in encoded]) for name in encoded[0]}
        values = {"timestep": _timesteps(timesteps)}
        if guidance is not None and "guidance" not in conditioning.players:
            raise InputError(f"guidance: {model.name} has no embedded guidance, so its gates cannot depend on it")
        if guidance is not None:
            values["guidance"] = np.array(sorted(set(guidance)), np.float64)
        return cls(model, conditioning, text, values, texts, wanted)

    @property
    def rows(self) -> int:
        """Texts that alpha depends on."""
        return len(self.texts) if "text" in self.players else 1

    @property
    def units(self) -> int:
        """Units of work: a text each with `channels`; without, all texts together, as moments alone are kept."""
        return self.rows if self.channels is not None else 1

    def measure(self, unit: int) -> dict[str, Array]:
        """With `channels`, alpha of one text, (*other players, site, channel); without, moments of all texts."""
        if self.channels is not None:
            table = np.stack([row[:, list(self.channels)] for row in self._row(unit)])
            return {"alpha": table.reshape(*self._inner, len(self.sites), len(self.channels))}
        parts, mean = self.streamed()
        return {"variance": parts, "mean": mean}

    def collect(self, done: Sequence[Mapping[str, Array]]) -> xr.Dataset:
        """Alpha, and how much of its variance each player explains.

        alpha                        (prompt, timestep, [guidance,] block, stream, gate, channel)   with `channels`
        share                        (term, block, stream, gate, channel)   of alpha's variance over the grid
        share_low, share_high        the same; jackknife over prompts; with `channels`
        shapley                      (player, block, stream, gate, channel)
        mean, deviation              (block, stream, gate, channel)   of alpha over the grid

        Without `channels`, all channels are split from streamed moments and the grid itself is not kept.
        """
        if self.channels is None:
            return self.describe(done[0]["variance"], done[0]["mean"], None)
        table = np.stack([part["alpha"] for part in done])
        table = table if "text" in self.players else table[0]
        count = len(self.players)
        return self.describe(variance.split_grid(table, count), table.mean(axis=tuple(range(count))), table)

    @property
    def _inner(self) -> tuple[int, ...]:
        return tuple(len(values) for values in self.values.values())

    def streamed(self) -> tuple[Array, Array]:
        """Variances of the terms, and mean, (term, site, channel), prompt by prompt; the grid is never in memory."""
        inner = self._inner
        if "text" not in self.players:
            table = np.stack(list(self._row(0))).reshape(*inner, len(self.sites), -1)
            return variance.split_grid(table, len(self.players)), table.mean(axis=tuple(range(len(inner))))
        count, axes = len(self.texts), tuple(range(len(inner)))
        marginal: dict[tuple[int, ...], Array] = {}
        first: Array | None = None
        total = np.zeros(())
        for number in range(count):
            cells = np.stack(list(self._row(number))).reshape(*inner, len(self.sites), -1)
            cells = cells.astype(np.float64)
            first = cells if first is None else first
            total = total + (cells - first) / count
            for kept in itertools.chain.from_iterable(itertools.combinations(axes, n) for n in range(len(axes) + 1)):
                over = tuple(axis for axis in axes if axis not in kept)
                square = ((cells - first).mean(axis=over, keepdims=True) ** 2).mean(axis=axes)
                marginal[kept] = marginal.get(kept, 0.0) + square / count
        assert first is not None
        return variance.with_text(first, np.asarray(total), marginal, axes), (first + total).mean(axis=axes)

    def _row(self, number: int) -> Iterator[Array]:
        """Alpha of every cell of one text, (site, channel), the last player fastest."""
        inner = list(itertools.product(*self.values.values()))
        for start in range(0, len(inner), GRID_BATCH):
            yield from self._compute(self.model.pipe.transformer, number, inner[start : start + GRID_BATCH])

    def _compute(self, transformer: Any, number: int, cells: list[tuple[float, ...]]) -> Iterator[Array]:
        anatomy = self.model.anatomy
        given = {name: take_rows(value, [number] * len(cells)) for name, value in self.text.items()}
        device = self.model.pipe._execution_device
        for place, player in enumerate(self.values):
            column = torch.tensor([cell[place] for cell in cells], dtype=torch.float32, device=device)
            value = column / anatomy.timestep_scale if player == "timestep" else column * anatomy.guidance_scale
            given[self.conditioning.players[player]] = value
        with torch.no_grad():
            inputs = self.conditioning.inputs(transformer, given)
            found: dict[tuple[int, str], Any] = {}
            alphas = []
            for modulation, chunk, site in self.sites:
                key = (site.block, modulation.name)
                if key not in found:
                    module = transformer.get_submodule(anatomy.blocks[site.block].path)
                    own = self.conditioning.of_block(inputs, site.block)
                    found[key] = modulation.split(modulation.compute(module, own))
                alphas.append(found[key][chunk].float().cpu())
        yield from torch.stack(alphas, dim=1).numpy()

    def describe(self, parts: Array, mean: Array, table: Array | None) -> xr.Dataset:
        """The result, its sites unfolded into block, stream and gate."""
        terms, channels = variance.terms_of(self.players), self.channels
        total = parts.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = parts / total
        shapley = np.stack(
            [sum(share[n] / len(t) for n, t in enumerate(terms) if player in t) for player in range(len(self.players))]
        )
        names = [":".join(self.players[player] for player in term) for term in terms]
        found = {
            "share": self._unfold(share, ("term",)),
            "shapley": self._unfold(shapley, ("player",)),
            "mean": self._unfold(mean, ()),
            "deviation": self._unfold(np.sqrt(total), ()),
        }
        if table is not None:
            found["alpha"] = self._unfold(table, tuple("prompt" if p == "text" else p for p in self.players))
            low, high = variance.share_intervals(table, len(self.players)) if "text" in self.players else (share * np.nan,) * 2
            found |= {"share_low": self._unfold(low, ("term",)), "share_high": self._unfold(high, ("term",))}
        result = xr.Dataset(found).assign_coords(
            term=np.array(names, dtype=object),
            player=np.array(self.players, dtype=object),
            channel=np.arange(mean.shape[-1]) if channels is None else np.array(channels),
        )
        if table is not None:
            result = result.assign_coords(self.values)
            if "text" in self.players:
                result = result.assign_coords(prompt_text=("prompt", np.array(self.texts, dtype=object)))
        return result.assign_attrs(self._attributes(table is not None))

    def _unfold(self, values: Array, leading: tuple[str, ...]) -> xr.DataArray:
        anatomy = self.model.anatomy
        shape = (*values.shape[:-2], len(anatomy.blocks), len(anatomy.streams), len(anatomy.gates), values.shape[-1])
        found = np.full(shape, np.nan, values.dtype)
        for number, (_, _, site) in enumerate(self.sites):
            found[(..., *self._place(site), slice(None))] = values[..., number, :]
        coordinates = {
            "block": np.arange(len(anatomy.blocks)),
            "stream": np.array(anatomy.streams, dtype=object),
            "gate": np.array(anatomy.gates, dtype=object),
        }
        return xr.DataArray(found, coordinates, (*leading, "block", "stream", "gate", "channel"))

    def _place(self, site: Site) -> tuple[int, int, int]:
        return site.block, self.model.anatomy.streams.index(site.stream), self.model.anatomy.gates.index(str(site.gate))

    def _attributes(self, kept: bool) -> dict[str, Any]:
        sizes = ", ".join(f"{len(values)} values of {name}" for name, values in self.values.items())
        without = "" if "text" in self.players else "text cannot enter the gates of this model at all; "
        held = "" if "guidance" in self.values or "guidance" not in self.text else "; embedded guidance held at its default"
        return {
            "analysis": "gates",
            "model": self.model.name,
            "weights": fingerprint(self.model.pipe),
            "grid": f"{len(self.texts)} prompts, {sizes}",
            "averaged_over": "the full grid, every cell alike",
            "interval": intervals.said_jackknife(len(self.texts), "share") if kept else "none: streamed",
            "control": "exact: no block was run",
            "note": f"{without}shares hold for these prompts and these timesteps{held}",
        }
