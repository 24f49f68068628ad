"""Alpha over a grid of prompts x timesteps, computed without running a block: the exact shares of timestep and text."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from typing_extensions import Doc

from interp import experiments
from interp.analysis.table import table
from interp.base.options import Indices, Numbers, Prompts
from interp.base.sites import parse_indices
from interp.experiments.arguments import numbers
from interp.experiments.kind import Figure, Kind, Request, Shown

if TYPE_CHECKING:
    import xarray as xr


FEW = 8  # more channels than this are shown as their median


@dataclasses.dataclass(frozen=True)
class Options:
    """The axes of the grid."""

    prompts: Prompts
    channels: Annotated[Indices, Doc('Channels such as "29". [default: all; then only moments are kept]')] = None
    timesteps: Annotated[int | Numbers, Doc('Number of timesteps, evenly spaced over 0..1000; or values, "100,500,900".')] = 50
    guidance: Annotated[Numbers | None, Doc('Values of the embedded guidance, such as "1,3.5,7".')] = None


def design(request: Request) -> experiments.design.Measuring:
    """One unit per prompt; one unit in all if no channels are given."""
    options: Options = request.options
    none_drawn = "the gates are computed over timesteps and no picture is drawn"
    request.sampling.without("steps", "seed", "repeats", "height", "width", why=none_drawn)
    given = options.timesteps
    timesteps = [given] if isinstance(given, int) else numbers(given, "timesteps")
    grid = experiments.grid.Grid.build(
        request.model,
        options.prompts,
        parse_indices(options.channels, "channels"),
        timesteps=int(timesteps[0]) if len(timesteps) == 1 else timesteps,
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


def by_channel(found: xr.Dataset) -> xr.Dataset:
    """One row per channel; the median over channels if there are many."""
    parts = found[["mean", "deviation", "shapley"]]
    if found.sizes["channel"] <= FEW:
        return parts.assign_coords(channel=[str(channel) for channel in found["channel"].to_numpy()])
    return parts.median("channel").expand_dims(channel=[f"median of {found.sizes['channel']}"])


gates = Kind(
    "gates",
    "Compute alpha over prompts x timesteps without running a block, and split its variance by what sets the gates.",
    Options,
    design,
    {"gates": Shown("gates", table("gates", by_channel))},
    {"gates": Figure("causes.gates", "gates")},
)
