"""Alpha tabulated over prompts x timesteps without running a block (`experiments.grid`): "timestep or text", exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from typing_extensions import Doc

from interp import experiments
from interp.analysis.table import Along, Table
from interp.base.options import Prompts
from interp.base.sites import parse_indices
from interp.experiments.arguments import numbers
from interp.experiments.kind import Kind, Request
from interp.experiments.shown import Figure, Shown

if TYPE_CHECKING:
    import xarray as xr

    from interp.experiments.design import Measuring

FEW = 8  # channels that have rows of their own


@dataclasses.dataclass(frozen=True)
class Options:
    """The grid."""

    prompts: Prompts
    channels: Annotated[Sequence[int] | str | None, Doc('Channels such as "29". [default: all, streamed]')] = None
    timesteps: Annotated[
        int | Sequence[float] | str, Doc('How many timesteps, evenly spaced over 0..1000; or values, such as "100,500,900".')
    ] = 50
    guidance: Annotated[Sequence[float] | str | None, Doc('Values of the embedded guidance, such as "1,3.5,7".')] = None


def design(request: Request) -> Measuring:
    """A unit for every prompt; without channels, one for all."""
    options: Options = request.options
    none_drawn = "gates are tabulated over timesteps, no picture is drawn"
    request.sampling.without("steps", "seed", "repeats", "height", "width", why=none_drawn)
    grid = experiments.grid.Grid.build(
        request.model,
        options.prompts,
        parse_indices(options.channels, "channels"),
        timesteps=_timesteps(options.timesteps),
        guidance=None if options.guidance is None else numbers(options.guidance, "guidance"),
        settings=request.settings(),
    )
    values = {name: [float(value) for value in found] for name, found in grid.values.items()}
    return request.measuring(
        request.prepare(options.prompts),
        {"channels": grid.channels, **values},
        measure_unit=grid.measure,
        collect=grid.collect,
        units=grid.units,
        forwards=0.0,
    )


def _timesteps(given: int | Sequence[float] | str) -> int | list[float]:
    """A count, or values."""
    found = [given] if isinstance(given, int) else numbers(given, "timesteps")
    return int(found[0]) if len(found) == 1 else list(found)


def by_channel(found: xr.Dataset) -> xr.Dataset:
    """A row a channel where few were asked for, else the median over channels."""
    parts = found[["mean", "deviation", "shapley"]]
    if found.sizes["channel"] <= FEW:
        return parts.assign_coords(channel=[str(channel) for channel in found["channel"].to_numpy()])
    return parts.median("channel").expand_dims(channel=[f"median of {found.sizes['channel']}"])


TABLE = Table(
    ("stream", "block", "gate", "channel"),
    {
        "block": "block",
        "stream": "stream",
        "gate": "gate",
        "channel": "channel",
        "mean alpha": "mean",
        "deviation": "deviation",
        "players": Along("player", {"{} (Shapley)": "shapley"}),
    },
    keep=lambda one: one["mean"].notnull(),
)
gates = Kind(
    "gates",
    "Tabulate alpha over prompts x timesteps without running a block: what sets the gates, exactly.",
    Options,
    design,
    {"gates": Shown("gates", TABLE, view=by_channel)},
    {"gates": Figure("causes.gates", "gates")},
)
