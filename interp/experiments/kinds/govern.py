"""Clamp test of Detail Guidance's claim that the gates set the massive channels (arXiv 2510.11538, section 4.1).

A gate adds alpha x branch. Edits per block and gate, each in a separate run:

    removed            alpha of the massive channels is 0
    alpha_ordinary     alpha of the massive channels is the median channel's
    branch_ordinary    the branch of the massive channels is the median channel's, under their own alpha
    removed_ordinary   alpha of the same number of ordinary channels is 0
    raised_ordinary    alpha of the ordinary channels is the massive channels'

If alpha governs, the first two take the channels' size away, the third and fourth do not, and the last makes the ordinary
channels massive. If the branch does, the second leaves the size and the third takes it. The third is made by scaling alpha by
the ratio of the two branches' means over tokens, which adds the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from interp import analysis, experiments, interventions
from interp.analysis.table import table
from interp.base.errors import InputError, ModelError
from interp.base.options import Blocks, Channels, Prompts
from interp.base.sites import select_indices
from interp.base.streams import GENERATED
from interp.experiments.kind import Figure, Kind, Request, Shown

if TYPE_CHECKING:
    import xarray as xr

    from interp.store.schema import Array
    from interp.store.traced_run import Run

ARMS = ("removed", "alpha_ordinary", "branch_ordinary", "removed_ordinary", "raised_ordinary")


@dataclasses.dataclass(frozen=True)
class Options:
    """The channels and blocks at which alpha is edited."""

    prompts: Prompts
    channels: Channels = None
    blocks: Blocks = None


@dataclasses.dataclass(frozen=True)
class _Arm:
    """One edited run: its block, gate, channels and edit."""

    block: int
    gate: str
    name: str
    channels: tuple[int, ...]
    edit: Any


def design(request: Request) -> experiments.design.Measuring:
    """One unit per block, gate and edit: a traced run with a store in the folder NAME/ next to the experiment's store.

    The original run is traced here, since the channels and the level of alpha depend on it.
    """
    options, model = request.options, request.model
    if not model.anatomy.gates:
        raise ModelError(f"{model.name} has no gates: no alpha multiplies its branches, so none can be clamped")
    folder = request.out.with_name(request.out.name.removesuffix(".zarr"))
    request = dataclasses.replace(request, out=folder.with_name(f"{folder.name}.zarr"))
    prepared, original = request.traced(options.prompts, folder / "unedited.zarr", branches=True)
    chosen = analysis.massive.channels_of(original, options.channels, GENERATED)
    others = [channel for channel in range(model.anatomy.channels) if channel not in chosen]
    ordinary = list(experiments.ranking.draw_channels(others, min(len(chosen), len(others)), request.sampling.seed))
    wanted = select_indices(options.blocks, len(model.anatomy.blocks), "blocks")
    arms = list(_arms(original, wanted, chosen, ordinary))
    if not arms:
        raise InputError(f"blocks: none of {list(wanted)} has a gate in the image stream")

    def measure(number: int) -> dict[str, Array]:
        arm = arms[number]
        store = folder / f"block.{arm.block}-{arm.gate}-{arm.name}.zarr"
        _, run = request.traced(options.prompts, store, interventions=[arm.edit])
        return _compare(original, run, arm)

    return request.measuring(
        prepared,
        {"channels": chosen, "ordinary": ordinary, "blocks": wanted},
        measure_unit=measure,
        collect=lambda done: _collect(original, arms, done, wanted, chosen, ordinary),
        units=len(arms),
        forwards=float(len(prepared.plan.rows()) * len(prepared.schedule.timesteps) * (1 + len(arms))),
    )


def _arms(original: Run, blocks: Sequence[int], chosen: list[int], ordinary: list[int]) -> Iterator[_Arm]:
    """The edited runs, in order."""
    import numpy as np
    import xarray as xr

    gates, written = (group.isel(stream=0) for group in (original.gates, original.branches))
    for block in blocks:
        for gate in (str(value) for value in gates["gate"].to_numpy()):
            if not bool(gates["present"].sel(block=block, gate=gate)):
                continue
            at: dict[str, Any] = {"blocks": [block], "at": f"alpha.{gate}"}
            here = [found.sel(block=[block], gate=gate, drop=True).compute() for found in (gates["alpha"], written["branch"])]
            alpha = here[0].mean("prompt").transpose("step", "block", "channel")
            size, branch = (abs(one).mean("prompt").transpose("step", "block", "channel") for one in here)
            level, ordinary_level = size.sel(channel=chosen).mean("channel"), size.median("channel")
            ratio = branch.median("channel") / branch.sel(channel=chosen)

            def values(array: xr.DataArray, said: str) -> Any:
                return interventions.Values.of(array.transpose("step", "block", "channel"), f"the original run: {said}")

            def signed(channels: list[int], sizes: xr.DataArray, alpha: xr.DataArray = alpha) -> xr.DataArray:
                return cast("xr.DataArray", xr.apply_ufunc(np.sign, alpha.sel(channel=channels)) * sizes)

            lowered = values(signed(chosen, ordinary_level), f"the median channel's |alpha.{gate}|")
            rescaled = values(alpha.sel(channel=chosen) * ratio.clip(max=1.0), f"alpha.{gate} x the branches' ratio")
            raised = values(signed(ordinary, level), f"|alpha.{gate}| of channels {chosen}")
            massive, others = {"channels": chosen, **at}, {"channels": ordinary, **at}
            edits = {
                "removed": interventions.Scale(0.0, **massive),
                "alpha_ordinary": interventions.Replace(lowered, **massive),
                "branch_ordinary": interventions.Replace(rescaled, **massive),
                "removed_ordinary": interventions.Scale(0.0, **others),
                "raised_ordinary": interventions.Replace(raised, **others),
            }
            for name, edit in edits.items():
                yield _Arm(block, gate, name, tuple(ordinary if "ed_ordinary" in name else chosen), edit)


def _compare(original: Run, run: Run, arm: _Arm) -> dict[str, Array]:
    """Size of the edited channels with over without the edit, per prompt text, at the edited and the last block."""
    import numpy as np

    sizes = []
    for source in (original, run):
        here = analysis.sources.statistics(source)["mean_abs"].isel(stream=0)
        blocks = here["block"].to_numpy()
        at = here.sel(block=[arm.block, int(blocks[-1])])
        sizes.append(analysis.sources.over_steps(at))
    before, after = sizes
    edited = {"channel": list(arm.channels)}
    ratio = (after.sel(edited) / before.sel(edited)).mean("channel").transpose("prompt", "block").to_numpy()
    own, units = analysis.sources.by_text(after.isel(block=0)).mean("prompt"), analysis.sources.units(after)
    over = float(own.sel(edited).mean() / own.median("channel"))
    found = analysis.result.Estimate.mean(ratio, units)
    return {"ratio": found.value, "low": found.low, "high": found.high, "over": np.array(over)}


def _collect(
    original: Run,
    arms: Sequence[_Arm],
    done: Sequence[dict[str, Array]],
    blocks: Sequence[int],
    chosen: list[int],
    ordinary: list[int],
) -> xr.Dataset:
    """The result, by arm, block and gate.

    ratio, ratio_low, ratio_high   (arm, block, gate, measured)   size of the edited channels over their size in the original
                                                                  run, at the output of the edited block (`own`) and of the
                                                                  last (`last`); mean over channels, steps and prompts
    over_median                    (arm, block, gate)             edited channels over the median channel, at the edited block
    """
    import numpy as np

    gates = [str(value) for value in original.gates["gate"].to_numpy()]
    axes, shape = ("arm", "block", "gate", "measured"), (len(ARMS), len(blocks), len(gates), 2)
    names = {"ratio": "ratio", "ratio_low": "low", "ratio_high": "high", "over_median": "over"}
    found = {name: np.full(shape[: 3 if name == "over_median" else 4], np.nan) for name in names}
    for arm, values in zip(arms, done, strict=True):
        place = (ARMS.index(arm.name), list(blocks).index(arm.block), gates.index(arm.gate))
        for name, measured in names.items():
            found[name][place] = values[measured]
    return analysis.result.result(
        "govern",
        {name: (axes[: table.ndim], table) for name, table in found.items()},
        {"arm": ARMS, "block": list(blocks), "gate": gates, "measured": ["own", "last"]},
        averaged_over="edited channels, tokens, steps, then prompt texts",
        interval=analysis.sources.units(original.stats).said(),
        control=f"ordinary channels {ordinary}, as many as massive ones",
        channels=chosen,
        ordinary=ordinary,
        **analysis.sources.facts_of(original),
    )


def _by_place(found: xr.Dataset) -> xr.Dataset:
    """The ratios at the edited block and at the last one as variables."""
    for place in ("own", "last"):
        names = {f"ratio{end}": f"{place}{end}" for end in ("", "_low", "_high")}
        found = found.assign(found[list(names)].sel(measured=place, drop=True).rename(names))
    return found


govern = Kind(
    "govern",
    "Test whether alpha sets the massive channels: clamp it there, raise it elsewhere, in one block at a time.",
    Options,
    design,
    {"govern": Shown("govern", table("govern", _by_place))},
    {"govern": Figure("effects.govern", "govern")},
)
