"""States of one small run in memory, for interactive work: `images, cache = model.run_with_cache(prompt)`.

`run_with_cache`, `names_filter` and `cache["resid_post", 5]` follow TransformerLens; `ALIASES` maps its names to ours. For more
than a few prompts or sites, trace to a store.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.base.errors import InputError
from interp.base.plan import groups
from interp.base.sites import Site, as_index, resolve_indices
from interp.tracing.group import trace_group
from interp.tracing.prepare import Prepared
from interp.tracing.recorders import Receive, Recorder
from interp.tracing.steps import Moving

ALIASES = {
    "resid_pre": "input",
    "resid_mid": "mid",
    "resid_post": "hidden",
    "attn_out": "branch.attn",
    "mlp_out": "branch.mlp",
    "gate_msa": "alpha.attn",
    "gate_mlp": "alpha.mlp",
}
NamesFilter = str | Sequence[str] | Callable[[str], bool] | None


class Cache(Mapping[str, xr.DataArray]):
    """Values by site name: (prompt, step, token, channel) for states, (prompt, step, channel) for gates.

    cache["block.5/image/hidden"]      by name
    cache["hidden", 5]                 kind and block, of the generated stream
    cache["alpha.mlp", -1, "text"]     kind, block counted from the end, stream
    cache["resid_post", 5]             TransformerLens' names
    """

    def __init__(self, values: Mapping[str, xr.DataArray], blocks: int, generated: str) -> None:
        self._values, self._blocks, self._generated = dict(values), blocks, generated

    def __getitem__(self, key: Any) -> xr.DataArray:
        name = key if isinstance(key, str) else self._name(key)
        if name not in self._values:
            some = ", ".join(list(self._values)[:4])
            raise InputError(f"cache has no {name!r}; names_filter kept {len(self._values)} sites: {some}, ...")
        return self._values[name]

    def _name(self, key: Any) -> str:
        if not isinstance(key, tuple) or len(key) not in (2, 3):
            raise InputError(f"cache keys are a site's name, or (kind, block[, stream]) such as ('hidden', 5); got {key!r}")
        kind, block, stream = (*key, self._generated)[:3]
        number = as_index(block)
        if number is None:
            raise InputError(f"cache: the block must be an integer; got {block!r}")
        (place,) = resolve_indices([number], self._blocks, "cache: the block")
        return f"block.{place}/{stream}/{ALIASES.get(str(kind), str(kind))}"

    def __contains__(self, key: object) -> bool:
        try:
            return (key if isinstance(key, str) else self._name(key)) in self._values
        except InputError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        size = sum(value.nbytes for value in self._values.values()) / 1e6
        return f"<interp.Cache of {len(self)} sites, {size:.1f} MB; first: {next(iter(self), None)}>"


class CacheRecorder(Recorder):
    """Keeps every value of the selected sites."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self.sites = sites
        self.values: dict[Site, list[Moving]] = {site: [] for site in sites}

    def receiver(self, site: Site) -> Receive:
        """Copy to the CPU, without waiting."""
        return lambda step, value: self.values[site].append(Moving(value))


def chosen_sites(sites: Sequence[Site], names_filter: NamesFilter) -> list[Site]:
    """Sites that match a filter: a pattern, several, a function of the name, or `None` (all hidden states)."""
    if names_filter is None:
        names_filter = "*/hidden"
    if callable(names_filter):
        found = [site for site in sites if names_filter(str(site))]
    else:
        if not isinstance(names_filter, str | Sequence):
            raise InputError(f"names_filter must be a pattern, a list of patterns or a function; got {names_filter!r}")
        patterns = [names_filter] if isinstance(names_filter, str) else list(names_filter)
        found = [site for site in sites if any(fnmatch.fnmatchcase(str(site), pattern) for pattern in patterns)]
    if not found:
        raise InputError(
            f"names_filter {names_filter!r} matches no site; sites have names such as {sites[0]} (model.anatomy.sites())"
        )
    return found


def run_with_cache(prepared: Prepared, names_filter: NamesFilter) -> tuple[xr.DataArray, Cache]:
    """Trace all rows in one batch; return pictures, (prompt, y, x, rgb) uint8, and the cache."""
    model, rows = prepared.model, prepared.plan.rows()
    sites = chosen_sites(list(model.anatomy.sites()), names_filter)
    batches = [(batch, CacheRecorder(sites)) for batch in groups(rows, prepared.together(len(rows)))]
    traced = [row for batch, recorder in batches for row in trace_group(prepared, batch, [recorder])]
    failed = [row.failure for row in traced if row.failure is not None]
    if failed:
        raise InputError(f"{failed[0]}; a state that is not finite cannot be cached")
    coordinates = {
        "prompt_text": ("prompt", np.array([row.text for row in rows], dtype=object)),
        "seed": ("prompt", [row.seed for row in rows]),
    }
    pictures = np.stack([row.arrays["outputs"]["image"] for row in traced])
    images = xr.DataArray(pictures, coordinates, ("prompt", "y", "x", "rgb"), "image")
    coordinates |= {"timestep": ("step", prepared.schedule.timesteps), "sigma": ("step", prepared.schedule.sigmas)}
    values = {}
    for site in sites:
        every = [np.stack([moving.numpy() for moving in recorder.values[site]], axis=1) for _, recorder in batches]
        stacked = np.concatenate(every)
        axes = ("prompt", "step", "token", "channel") if stacked.ndim == 4 else ("prompt", "step", "channel")
        values[str(site)] = xr.DataArray(stacked, coordinates, axes, str(site))
    return images, Cache(values, len(model.anatomy.blocks), model.anatomy.generated.name)
