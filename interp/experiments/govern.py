"""Does alpha govern? The clamp test of Detail Guidance's claim that the gates set the massive channels (arXiv 2510.11538, 4.1).

Per block and gate, in runs of their own: alpha at the massive channels set to 0; alpha at as many ordinary channels set to 0;
and the other way round, alpha at the ordinary channels raised to the massive channels' level. If alpha governs, the first takes
the channels' size away where the second does little, and the third makes new massive channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from interp.analysis import intervals, massive, sources
from interp.errors import InputError, ModelError
from interp.interventions.edits import Replace, Scale
from interp.interventions.values import Values
from interp.plan import at_least
from interp.run import trace
from interp.sites import parse_indices, resolve_indices
from interp.store.opened import Run
from interp.tracing.model import Model, load

Array = NDArray[Any]
ARMS = ("removed", "removed_ordinary", "raised_ordinary")
STREAM = "image"
OnArm = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class _Arm:
    """One run: a block, a gate, what is done, and to which channels."""

    block: int
    gate: str
    name: str
    channels: tuple[int, ...]
    edit: Any

    @property
    def store(self) -> str:
        """Its store's name inside the experiment's folder."""
        return f"block.{self.block}-{self.gate}-{self.name}.zarr"


def clamp_alpha(
    model: Model | str | Path,
    prompts: Sequence[str] | str | Path,
    *,
    out: str | Path,
    channels: Sequence[int] | str | None = None,
    blocks: Sequence[int] | str | None = None,
    steps: int | None = None,
    seed: int = 0,
    batch_size: int = 1,
    on_arm: OnArm = lambda done, total, name: None,
    **arguments: Any,
) -> xr.Dataset:
    """Edit alpha at massive and at ordinary channels of the image stream, and measure the channels' size.

    ratio, ratio_low, ratio_high   (arm, block, gate, measured)   size of the edited channels over their size in the original
                                                                  run, at the edited block's output (`own`) and the last
                                                                  (`last`); mean over channels, steps and prompts
    over_median                    (arm, block, gate)             edited channels over the median channel, own block's output

    Every run is a store in the folder `out`, original.zarr and one an arm: a killed experiment goes on with the same call.
    """
    loaded = model if isinstance(model, Model) else load(model)
    if not loaded.anatomy.gates:
        raise ModelError(f"{loaded.name} has no gates: no alpha multiplies what its blocks add, so none can be clamped")
    folder = Path(out)
    given: dict[str, Any] = {"steps": steps, "seed": seed, "batch_size": at_least("batch_size", batch_size, 1), **arguments}
    original = trace(loaded, prompts, out=folder / "original.zarr", **given)
    chosen = massive.channels_of(original, channels, STREAM)
    ordinary = ordinary_channels(loaded.anatomy.channels, chosen, seed)
    wanted = resolve_indices(parse_indices(blocks, "blocks"), len(loaded.anatomy.blocks), "blocks")
    arms = list(_arms(original, wanted, chosen, ordinary))
    if not arms:
        raise InputError(f"blocks: none of {list(wanted)} has a gate in the image stream")
    measured: dict[tuple[int, str, str], dict[str, Array]] = {}
    for number, arm in enumerate(arms):
        run = trace(loaded, prompts, out=folder / arm.store, interventions=[arm.edit], **given)
        measured[arm.block, arm.gate, arm.name] = _compare(original, run, arm)
        on_arm(number + 1, len(arms), arm.store)
    return _collect(original, measured, wanted, chosen, ordinary)


def ordinary_channels(count: int, chosen: Sequence[int], seed: int) -> list[int]:
    """As many random channels as are massive, none of those."""
    others = np.setdiff1d(np.arange(count), chosen)
    return sorted(int(c) for c in np.random.default_rng(seed).choice(others, min(len(chosen), len(others)), replace=False))


def _arms(original: Run, blocks: Sequence[int], chosen: list[int], ordinary: list[int]) -> Any:
    """Every run of the experiment, in order."""
    alpha = original.gates["alpha"].sel(stream=STREAM)
    present = original.gates["present"].sel(stream=STREAM)
    for block in blocks:
        for gate in (str(value) for value in alpha["gate"].to_numpy()):
            if not bool(present.sel(block=block, gate=gate)):
                continue
            at: dict[str, Any] = {"blocks": [block], "at": f"alpha.{gate}"}
            here = alpha.sel(block=[block], gate=gate, drop=True).mean("prompt").compute()
            level = abs(here.sel(channel=chosen)).mean("channel")
            signs: xr.DataArray = xr.apply_ufunc(np.sign, here.sel(channel=ordinary))
            raised = (signs * level).transpose("step", "block", "channel")
            values = Values.of(raised, f"|alpha.{gate}| of channels {chosen} in the original run")
            yield _Arm(block, gate, "removed", tuple(chosen), Scale(0.0, channels=chosen, **at))
            yield _Arm(block, gate, "removed_ordinary", tuple(ordinary), Scale(0.0, channels=ordinary, **at))
            yield _Arm(block, gate, "raised_ordinary", tuple(ordinary), Replace(values, channels=ordinary, **at))


def _compare(original: Run, run: Run, arm: _Arm) -> dict[str, Array]:
    """Size of the edited channels with and without the edit, per prompt text, at the own and the last block."""
    sizes = []
    for source in (original, run):
        here = sources.statistics(source)["mean_abs"].sel(stream=STREAM)
        blocks = here["block"].to_numpy()
        at = here.sel(block=[arm.block, int(blocks[-1])])
        sizes.append(sources.by_text(sources.over_steps(at)))
    before, after = sizes
    edited = {"channel": list(arm.channels)}
    ratio = (after.sel(edited) / before.sel(edited)).mean("channel").transpose("prompt", "block").to_numpy()
    own = after.isel(block=0).mean("prompt")
    over = float(own.sel(edited).mean() / own.median("channel"))
    low, high = intervals.bootstrap(ratio)
    return {"ratio": ratio.mean(axis=0), "low": low, "high": high, "over": np.array(over)}


def _collect(
    original: Run, measured: dict[Any, Any], blocks: Sequence[int], chosen: list[int], ordinary: list[int]
) -> xr.Dataset:
    gates = [str(value) for value in original.gates["gate"].to_numpy()]
    shape = (len(ARMS), len(blocks), len(gates), 2)
    found = {name: np.full(shape, np.nan) for name in ("ratio", "low", "high")}
    over = np.full(shape[:3], np.nan)
    for (block, gate, name), values in measured.items():
        place = (ARMS.index(name), list(blocks).index(block), gates.index(gate))
        over[place] = values["over"]
        for variable in found:
            found[variable][place] = values[variable]
    axes = ("arm", "block", "gate", "measured")
    texts = len(set(original.prompts))
    return xr.Dataset(
        {
            "ratio": (axes, found["ratio"]),
            "ratio_low": (axes, found["low"]),
            "ratio_high": (axes, found["high"]),
            "over_median": (axes[:3], over),
        },
        {
            "arm": np.array(ARMS, dtype=object),
            "block": list(blocks),
            "gate": np.array(gates, dtype=object),
            "measured": np.array(["own", "last"], dtype=object),
        },
        {
            "analysis": "govern",
            "channels": chosen,
            "ordinary": ordinary,
            "averaged_over": "edited channels, tokens, steps, then prompt texts",
            "interval": intervals.said(texts),
            "control": f"ordinary channels {ordinary}, as many as massive ones",
            **sources.facts_of(original),
        },
    )
