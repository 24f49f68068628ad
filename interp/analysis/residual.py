"""Who writes a channel: the state as a sum of the embedding and every block's gated branches. Exact, up to rounding.

    mean x[K] = embedding + sum over blocks k <= K and gates j of alpha[k, j] * mean branch[k, j]

Means are over tokens, and signed: contributions of opposite signs cancel in the state as they do here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import intervals, massive, sources
from interp.store.opened import Run

SIGNIFICANT = 0.5  # of the largest size over blocks


def decompose(source: Run, channels: Sequence[int] | str | None = None, *, stream: str = "image") -> xr.Dataset:
    """What each writer adds to a channel's signed mean, up to the last block that has the stream.

    contribution, _low, _high   (writer, step, channel)   mean over prompts; writers are `patch` (the embedding without its
                                                          position), `position` where the model adds one, `block.3/mlp`, ...
    alpha, branch               (writer, step, channel)   its two factors, each averaged over prompts by itself
    ordinary                    (writer, step)            the control: median |contribution| over the other channels
    state                       (block, step, channel)    the running sum: the embedding and all blocks up to this one
    remainder                   (block, step, channel)    largest |recorded mean - running sum|: rounding
    birth                       (channel)                 first block at whose output the size, averaged over steps, is at
                                                          least half of its largest over blocks
    largest_writer              (channel)                 the writer of the largest |contribution|, averaged over steps
    """
    chosen = massive.channels_of(source, channels, stream)
    written = sources.branches(source).sel(stream=stream)
    alpha = sources.gates(source)["alpha"].sel(stream=stream)
    mean = sources.statistics(source)["mean"].sel(stream=stream)
    parts = _writers(written, alpha)
    contribution = sources.by_text(parts["contribution"].astype(np.float64)).transpose("prompt", "writer", "step", "channel")
    at = contribution.sel(channel=chosen)
    low, high = intervals.bootstrap(at.to_numpy())
    axes = ("writer", "step", "channel")
    result = xr.Dataset(
        {
            "contribution": at.mean("prompt"),
            "contribution_low": (axes, low),
            "contribution_high": (axes, high),
            "alpha": parts["alpha"].sel(channel=chosen).mean("prompt"),
            "branch": parts["branch"].sel(channel=chosen).mean("prompt"),
            "ordinary": abs(contribution.drop_sel(channel=chosen)).mean("prompt").median("channel"),
        }
    )
    result = result.assign(_running(parts["contribution"].sel(channel=chosen), mean.sel(channel=chosen).compute()))
    blocks = result["block"].to_numpy()
    size = abs(result["state"]).mean("step")
    born = (size >= SIGNIFICANT * size.max("block")).transpose("channel", "block").to_numpy().argmax(axis=1)
    largest = abs(result["contribution"]).mean("step").transpose("channel", "writer").to_numpy().argmax(axis=1)
    names = np.array([str(name) for name in result["writer"].to_numpy()], dtype=object)
    result["birth"], result["largest_writer"] = ("channel", blocks[born]), ("channel", names[largest])
    return result.assign_attrs(
        analysis="residual",
        channels=chosen,
        averaged_over="tokens, then prompt texts",
        interval=intervals.said(at.sizes["prompt"]),
        control="ordinary: median |contribution| over the other channels",
        **sources.facts_of(source),
    )


def _writers(written: xr.Dataset, alpha: xr.DataArray) -> xr.Dataset:
    """contribution, alpha, branch of every writer, (prompt, writer, step, channel), in the order of writing."""
    embedding, position = written["embedding"].compute(), written["position"].compute()
    entries: list[tuple[str, Any, Any]] = []
    if bool((position != 0).any()):
        entries += [("patch", 1.0, embedding - position), ("position", 1.0, xr.zeros_like(embedding) + position)]
    else:
        entries += [("embedding", 1.0, embedding)]
    present = written["present"].to_numpy()
    for place, block in enumerate(written["block"].to_numpy()):
        for number, gate in enumerate(written["gate"].to_numpy()):
            if present[place, number]:
                here: dict[str, Any] = {"block": place, "gate": number}
                entries.append((f"block.{block}/{gate}", alpha.isel(here).compute(), written["branch"].isel(here).compute()))
    template = embedding.reset_coords(drop=True).astype(np.float64)
    plain = [(name, _plain(template, first), _plain(template, second)) for name, first, second in entries]
    found = {
        "contribution": xr.concat([a * b for _, a, b in plain], "writer"),
        "alpha": xr.concat([a for _, a, _ in plain], "writer"),
        "branch": xr.concat([b for _, _, b in plain], "writer"),
    }
    names = np.array([name for name, *_ in plain], dtype=object)
    kept = {str(n): c for n, c in embedding.coords.items() if n not in ("stream",)}
    return xr.Dataset(found).assign_coords(writer=names, **kept)


def _plain(template: xr.DataArray, factor: Any) -> xr.DataArray:
    """A factor as float64 on the template's axes, without the coordinates of its block and gate."""
    plain: xr.DataArray = template * 0 + (factor.reset_coords(drop=True) if isinstance(factor, xr.DataArray) else factor)
    return plain


def _running(contribution: xr.DataArray, mean: xr.DataArray) -> dict[str, xr.DataArray]:
    """The running sum after each block, mean over prompts, and its largest distance to the recorded mean."""
    writers = [str(name) for name in contribution["writer"].to_numpy()]
    states, remainders, blocks = [], [], []
    for block in mean["block"].to_numpy():
        recorded = mean.sel(block=block, drop=True)
        if bool(np.isnan(recorded).any()):
            continue
        upto = [place for place, name in enumerate(writers) if _block_of(name) <= block]
        state = contribution.isel(writer=upto).sum("writer")
        states.append(state.mean("prompt"))
        remainders.append(abs(state - recorded).max("prompt"))
        blocks.append(int(block))
    return {
        name: xr.concat(values, "block", coords="minimal", compat="override").assign_coords(block=blocks)
        for name, values in (("state", states), ("remainder", remainders))
    }


def _block_of(writer: str) -> int:
    return int(writer.split("/")[0].removeprefix("block.")) if writer.startswith("block.") else -1
