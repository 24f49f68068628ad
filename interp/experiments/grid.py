"""Alpha over a grid of prompts x timesteps, computed without running a block: the exact answer to "timestep or text".

Alpha depends on the conditioning alone, so every cell of the grid can be computed, including combinations that no sampling run
visits. The variance over the full grid splits exactly into main effects and interactions of independent players (Hoeffding
1948; Sobol 1993). A player's Shapley share is S_i + S_ij / 2 + ...
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from interp.analysis import factorial, sampled
from interp.analysis.result import result
from interp.base.errors import InputError, ModelError
from interp.base.prompts import check_prompts, read_prompts
from interp.base.sites import Site, resolve_indices
from interp.models.call_form import add_rows, take_rows
from interp.models.hook_points import Conditioning, Modulation, widened
from interp.models.identity import fingerprint
from interp.models.quiet import quiet
from interp.tracing.model import Model

Array = NDArray[Any]
ENCODE_BATCH, GRID_BATCH = 32, 256  # prompts per encoder call, cells computed together
TIMESTEPS = 50


def tabulate(
    model: Model, prompts: Sequence[str] | str | Path, channels: Sequence[int] | None = None, **given: Any
) -> xr.Dataset:
    """Alpha over the full grid and its variance by player, see `Grid.collect`; `given` are arguments of `Grid.build`."""
    grid = Grid.build(model, prompts, channels, **given)
    return grid.collect([grid.measure(unit) for unit in range(grid.units)])


def _timesteps(given: Sequence[float] | int) -> Array:
    """Timesteps in 0..1000. A number gives the middles of as many equal parts, so that neither end has a special weight."""
    if isinstance(given, int):
        if given < 2:
            raise InputError(f"timesteps must be at least 2; got {given}")
        return (np.arange(given) + 0.5) * 1000.0 / given
    values = np.array(sorted(set(given)), np.float64)
    if values.size < 2 or values.min() < 0 or values.max() > 1000.01:  # SCM starts at 1000.004
        raise InputError(f"timesteps must be two or more different values in 0..1000; got {list(given)[:5]}")
    return values


@dataclasses.dataclass(frozen=True)
class Grid:
    """The players (inputs of the gates), their values, and the sites of alpha."""

    model: Model
    conditioning: Conditioning
    text: Mapping[str, Any]
    """Encoded prompts, by argument of the transformer."""
    values: Mapping[str, Array]
    """Values of every player but text, by name."""
    texts: Sequence[str]
    channels: tuple[int, ...] | None
    """`None` for all; then only moments of alpha are kept."""

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
        """Check the arguments and encode the prompts.

        `timesteps` are values in the scheduler's units, or a number of evenly spaced ones (the middle of each part of 0..1000);
        `guidance` are values of the embedded guidance, for a model that has one.
        """
        conditioning, spec = model.anatomy.conditioning, model.loaded.spec
        if not model.anatomy.gates:
            raise ModelError(f"{model.name} has no gates: no alpha multiplies its branches")
        if conditioning is None or spec.conditions is None:
            raise ModelError(
                f"the anatomy of {model.name} does not define the inputs of its gates; trace it and use `interp attribute`"
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
    def players(self) -> list[str]:
        """The inputs of the gates that vary over the grid."""
        return ["text", *self.values] if "text" in self.conditioning.players else list(self.values)

    @property
    def sites(self) -> list[tuple[Modulation, int, Site]]:
        """Every alpha: its AdaLN projection, its chunk of the projection's output, and its site."""
        chunks = [chunk for index, block in enumerate(self.model.anatomy.blocks) for chunk in block.chunk_sites(index)]
        return [(modulation, number, site) for modulation, number, site in chunks if site.kind == "alpha"]

    @property
    def units(self) -> int:
        """Units of work: with `channels` one per text that alpha depends on, otherwise one, for moments over texts."""
        return len(self.texts) if self.channels is not None and "text" in self.players else 1

    def measure(self, unit: int) -> dict[str, Array]:
        """With `channels`, alpha of one text, (*other players, site, channel); otherwise moments over all texts."""
        if self.channels is not None:
            return {"alpha": self.table(unit)}
        parts, mean = self.streamed()
        return {"variance": parts, "mean": mean}

    def collect(self, done: Sequence[Mapping[str, Array]]) -> xr.Dataset:
        """Alpha, and the shares of its variance that the players explain.

        alpha                        (prompt, timestep, [guidance,] block, stream, gate, channel)   with `channels`
        share                        (term, block, stream, gate, channel)   of alpha's variance over the grid
        share_low, share_high        the same; jackknife over prompts; with `channels`
        shapley                      (player, block, stream, gate, channel)
        mean, deviation              (block, stream, gate, channel)   of alpha over the grid

        Without `channels`, variances of all channels come from streamed moments, and alpha is not kept.
        """
        if self.channels is None:
            return self._describe(done[0]["variance"], done[0]["mean"], None)
        table = np.stack([part["alpha"] for part in done])
        return self._describe(*self._moments(table if "text" in self.players else table[0]))

    def _moments(self, table: Array) -> tuple[Array, Array, Array]:
        """Variances of the terms, (term, site, channel), and mean, (site, channel), of a table over all players; the table."""
        count = len(self.players)
        return factorial.split_grid(table, count), table.mean(axis=tuple(range(count))), table

    def streamed(self) -> tuple[Array, Array]:
        """Variances of the terms, (term, site, channel), and mean, (site, channel), with one text in memory at a time."""
        if "text" not in self.players:
            return self._moments(self.table(0))[:2]
        count, axes = len(self.texts), tuple(range(len(self.values)))
        tables = (self.table(number).astype(np.float64) for number in range(count))
        first = next(tables)
        marginal: dict[tuple[int, ...], Array] = {}
        total = np.zeros(())
        for cells in itertools.chain([first], tables):
            total = total + (cells - first) / count
            for kept in [(), *factorial.terms_of(list(self.values))]:
                over = tuple(axis for axis in axes if axis not in kept)
                square = ((cells - first).mean(axis=over, keepdims=True) ** 2).mean(axis=axes)
                marginal[kept] = marginal.get(kept, 0.0) + square / count
        return factorial.with_text(first, np.asarray(total), marginal, axes), (first + total).mean(axis=axes)

    def table(self, number: int) -> Array:
        """Alpha of one text, (*other players, site, channel)."""
        cells = list(itertools.product(*self.values.values()))
        parts = [self._compute(number, cells[start : start + GRID_BATCH]) for start in range(0, len(cells), GRID_BATCH)]
        return np.concatenate(parts).reshape(*map(len, self.values.values()), *parts[0].shape[1:])

    def _compute(self, number: int, cells: Sequence[tuple[float, ...]]) -> Array:
        """Alpha of some cells of a text, (cell, site, channel)."""
        anatomy, transformer = self.model.anatomy, self.model.pipe.transformer
        given = {name: take_rows(value, [number] * len(cells)) for name, value in self.text.items()}
        device = self.model.pipe._execution_device
        for place, player in enumerate(self.values):
            column = torch.tensor([cell[place] for cell in cells], dtype=torch.float32, device=device)
            value = anatomy.timestep.given(column) if player == "timestep" else column * self.conditioning.guidance_scale
            given[self.conditioning.players[player]] = value
        kept = slice(None) if self.channels is None else list(self.channels)
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
                alphas.append(widened(found[key][chunk].float().cpu(), anatomy.channels)[:, kept])
        return torch.stack(alphas, dim=1).numpy()

    def _describe(self, parts: Array, mean: Array, table: Array | None) -> xr.Dataset:
        """The result, with the sites as block, stream and gate."""
        terms, total = factorial.terms_of(self.players), parts.sum(axis=0)
        levels = ([len(self.texts)] if "text" in self.players else []) + [len(values) for values in self.values.values()]
        share = factorial.shares(parts, levels)
        shapley = [sum(share[n] / len(t) for n, t in enumerate(terms) if player in t) for player in range(len(self.players))]
        found = {
            "share": self._unfold(share, ("term",)),
            "shapley": self._unfold(np.stack(shapley), ("player",)),
            "mean": self._unfold(mean, ()),
            "deviation": self._unfold(np.sqrt(total), ()),
        }
        coordinates: dict[str, Any] = {
            "block": np.arange(len(self.model.anatomy.blocks)),
            "stream": list(self.model.anatomy.stream_names),
            "gate": list(self.model.anatomy.gates),
            "term": [":".join(self.players[player] for player in term) for term in terms],
            "player": self.players,
            "channel": np.arange(mean.shape[-1]) if self.channels is None else np.array(self.channels),
        }
        if table is not None:
            found["alpha"] = self._unfold(table, tuple("prompt" if p == "text" else p for p in self.players))
            low, high = factorial.share_intervals(table, len(self.players)) if "text" in self.players else (share * np.nan,) * 2
            found |= {"share_low": self._unfold(low, ("term",)), "share_high": self._unfold(high, ("term",))}
            coordinates |= self.values
            if "text" in self.players:
                coordinates["prompt_text"] = ("prompt", list(self.texts))
        sizes = ", ".join(f"{len(values)} values of {name}" for name, values in self.values.items())
        without = "" if "text" in self.players else "text cannot enter the gates of this model at all; "
        held = "" if "guidance" in self.values or "guidance" not in self.text else "; embedded guidance held at its default"
        return result(
            "gates",
            found,
            coordinates,
            averaged_over="the full grid, every cell alike",
            interval="none: streamed" if table is None else sampled.Sampled(self.texts).said("share"),
            control="exact: no block was run",
            note=f"{without}{factorial.undetermined(levels)}shares hold for these prompts and these timesteps{held}",
            model=self.model.name,
            weights=fingerprint(self.model.pipe),
            grid=f"{len(self.texts)} prompts, {sizes}",
        )

    def _unfold(self, values: Array, leading: tuple[str, ...]) -> xr.DataArray:
        """(*leading, site, channel) as (*leading, block, stream, gate, channel), NaN for gates that do not exist."""
        anatomy = self.model.anatomy
        shape = (*values.shape[:-2], len(anatomy.blocks), len(anatomy.streams), len(anatomy.gates), values.shape[-1])
        found = np.full(shape, np.nan, values.dtype)
        for number, (_, _, site) in enumerate(self.sites):
            place = site.block, anatomy.stream_names.index(site.stream), anatomy.gates.index(str(site.gate))
            found[(..., *place, slice(None))] = values[..., number, :]
        return xr.DataArray(found, dims=(*leading, "block", "stream", "gate", "channel"))
