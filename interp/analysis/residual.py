"""Contributions to a channel: the state as a sum of the embedding and every block's gated branches. Exact up to rounding.

    mean x[K] = embedding + sum over blocks k <= K and gates j of alpha[k, j] * mean branch[k, j]

Means are over tokens, and signed: contributions of opposite signs cancel in the state as they do here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import massive, sources
from interp.analysis.result import Estimate, result
from interp.base.streams import GENERATED
from interp.store.traced_run import Run

SIGNIFICANT = 0.5  # of the largest size over blocks


def decompose(source: Run, channels: Sequence[int] | str | None = None, *, stream: str = GENERATED) -> xr.Dataset:
    """The contribution of each writer to a channel's signed mean, up to the last block that has the stream.

    contribution, _low, _high   (writer, step, channel)   mean over prompts; writers are `patch` (the embedding without its
                                                          position), `position` where the model adds one, `block.3/mlp`, ...
    over_steps, _low, _high     (writer, channel)         the same, averaged over steps
    alpha, branch               (writer, step, channel)   its two factors, each averaged over prompts by itself
    ordinary                    (writer, step)            the control: median |contribution| over the other channels
    state                       (block, step, channel)    the running sum: the embedding and all blocks up to this one
    remainder                   (block, step, channel)    largest |recorded mean - running sum|: rounding
    half_written                (channel)                 first block at whose output the size, averaged over steps, is at
                                                          least half of its largest over blocks
    largest_writer              (channel)                 the writer of the largest |contribution|, averaged over steps
    """
    stream = sources.stream_of(source, stream)
    chosen = massive.channels_of(source, channels, stream)
    written = sources.branches(source).sel(stream=stream)
    alpha = sources.gates(source)["alpha"].sel(stream=stream)
    mean = sources.statistics(source)["mean"].sel(stream=stream)
    parts = _writers(written, alpha, chosen)
    axes = ("writer", "step", "channel")
    at = parts["contribution"].transpose("prompt", *axes)
    units = sources.units(at)
    running = _running(parts["contribution"], mean.sel(channel=chosen).compute())
    size = abs(running["state"]).mean("step")
    added = abs(sources.by_text(at).mean("prompt")).mean("step")
    return result(
        "residual",
        {
            "contribution": (axes, Estimate.mean(at.to_numpy(), units)),
            "over_steps": (("writer", "channel"), Estimate.mean(at.mean("step").to_numpy(), units)),
            "alpha": parts["alpha"].mean("prompt"),
            "branch": parts["branch"].mean("prompt"),
            "ordinary": parts["ordinary"],
            **running,
            "half_written": size["block"][(size >= SIGNIFICANT * size.max("block")).argmax("block")].drop_vars("block"),
            "largest_writer": added["writer"][added.argmax("writer")].drop_vars("writer"),
        },
        {},
        averaged_over="tokens, then prompt texts",
        interval=units.said(),
        control="ordinary: median |contribution| over the other channels",
        stream=stream,
        channels=chosen,
        **sources.facts_of(source),
    )


def _writers(written: xr.Dataset, alpha: xr.DataArray, chosen: list[int]) -> xr.Dataset:
    """contribution, alpha, branch of every writer, (prompt, writer, step, channel), in the order of writing; and `ordinary`.

    All channels of one writer are in memory at a time; of the chosen ones all writers are.
    """
    found: dict[str, list[xr.DataArray]] = {"contribution": [], "alpha": [], "branch": [], "ordinary": []}
    names = []
    for name, factor, branch in _factors(written, alpha):
        contribution = (factor * branch).transpose("prompt", "step", "channel")
        names.append(name)
        found["contribution"].append(contribution.sel(channel=chosen))
        found["alpha"].append((xr.zeros_like(contribution) + factor).sel(channel=chosen))
        found["branch"].append(branch.sel(channel=chosen))
        found["ordinary"].append(abs(contribution.drop_sel(channel=chosen)).mean("prompt").median("channel"))
    joined = {name: xr.concat(values, "writer", coords="minimal", compat="override") for name, values in found.items()}
    return xr.Dataset(joined).assign_coords(writer=np.array(names, dtype=object))


def _factors(written: xr.Dataset, alpha: xr.DataArray) -> Iterator[tuple[str, Any, xr.DataArray]]:
    """(writer, alpha, branch) in the order of writing, float64; alpha is 1 for the embedding and where no gate is."""
    embedding = written["embedding"].compute().astype(np.float64)
    position = written["position"].compute().astype(np.float64)
    if bool((position != 0).any()):
        yield "patch", 1.0, embedding - position
        yield "position", 1.0, xr.zeros_like(embedding) + position
    else:
        yield "embedding", 1.0, embedding
    present, gates = written["present"].to_numpy(), written["gate"].to_numpy()
    along = ["block", "gate", "block_path", "block_kind"]
    for place, block in enumerate(written["block"].to_numpy()):
        here, factors = written["branch"].isel(block=place).compute(), alpha.isel(block=place).compute()
        gated = factors["gate"].to_numpy()[factors.notnull().any([name for name in factors.dims if name != "gate"]).to_numpy()]
        for number, gate in enumerate(gates):
            if present[place, number]:
                branch = here.isel(gate=number).drop_vars(along, errors="ignore").astype(np.float64)
                factor = factors.sel(gate=gate).drop_vars(along, errors="ignore").astype(np.float64) if gate in gated else 1.0
                yield f"block.{block}/{gate}", factor, branch


def _running(contribution: xr.DataArray, mean: xr.DataArray) -> dict[str, xr.DataArray]:
    """The running sum after each block, mean over prompts, and its largest distance to the recorded mean."""
    parts = [str(name).split("/")[0] for name in contribution["writer"].to_numpy()]
    written = [int(part.removeprefix("block.")) if part.startswith("block.") else -1 for part in parts]
    states, remainders, blocks = [], [], []
    for block in mean["block"].to_numpy():
        recorded = mean.sel(block=block, drop=True)
        if bool(np.isnan(recorded).any()):
            continue
        state = contribution.isel(writer=np.flatnonzero(np.array(written) <= block)).sum("writer")
        states.append(state.mean("prompt"))
        remainders.append(abs(state - recorded).max("prompt"))
        blocks.append(int(block))
    return {
        name: xr.concat(values, "block", coords="minimal", compat="override").assign_coords(block=blocks)
        for name, values in (("state", states), ("remainder", remainders))
    }
