"""Activation patching over blocks and steps: replace values of the corrupted prompt's run by those of the clean prompt's run.

Both runs of a pair have the same seed. A recovery of 0 is the corrupted picture, 1 the clean one. A cell patches one of these,
at one block, in one window of steps or one region of the picture:

    hidden       the block's output state
    massive      the massive channels of the state
    control, zero, shuffled, energy, third
                 its controls (`interp.experiments.moved`)
    alpha        the block's AdaLN gates
    everything   the states of both streams, and all conditioning that enters after the block, in the same steps
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp import analysis, experiments, interventions
from interp.analysis.table import table
from interp.base.errors import InputError
from interp.base.options import Blocks, Channels, Names, Prompts, Stream
from interp.base.site_recorder import at_least
from interp.base.sites import Site, check_choice, select_indices
from interp.base.streams import GENERATED
from interp.experiments.arguments import CONTROLS, MOVED, RankedBy, chosen_streams, listed, prepare_pairs
from interp.experiments.kind import Figure, Kind, Request, Shown

if TYPE_CHECKING:
    import xarray as xr

    from interp.base.plan import Row
    from interp.models.anatomy import Anatomy
    from interp.tracing.prepare import Prepared

WHATS = ("hidden", *MOVED, "alpha", "everything")
DEFAULT = ("hidden", "massive", "control", "alpha")
METRICS = ("picture", "structure", "latents")
Column = tuple[tuple[int, ...], tuple[int, ...] | None]
"""Steps and tokens of cells; tokens of `None` are all."""


@dataclasses.dataclass(frozen=True)
class Options:
    """The pairs of prompts, and the cells: blocks x windows of steps, or blocks x regions of the picture at all steps."""

    clean: Annotated[Prompts, Doc("A prompts file: the runs that values are taken from.")]
    corrupted: Annotated[Prompts, Doc("A prompts file, paired with --clean by line: the runs that are patched.")]
    what: Annotated[
        Names | None,
        Doc(
            "Any of hidden,massive,control,zero,shuffled,energy,third,alpha,everything. [default: hidden,massive,control,alpha]"
        ),
    ] = None
    blocks: Blocks = None
    windows: Annotated[int | None, Doc("Equal parts of the steps. [default: every step]")] = None
    regions: Annotated[int | None, Doc("Patch REGIONS x REGIONS parts of the picture instead of windows; no alpha.")] = None
    stream: Stream = GENERATED
    channels: Channels = None
    run: RankedBy = None
    metric: Annotated[str, Doc("Shown metric: picture, structure or latents (the store holds all).")] = "picture"

    def __post_init__(self) -> None:
        check_choice("metric", self.metric, METRICS)


@dataclasses.dataclass(frozen=True)
class Cell:
    """The sites, steps, tokens and channels that one arm patches."""

    what: str
    block: int
    steps: tuple[int, ...]
    tokens: tuple[int, ...] | None
    column: str
    sites: tuple[Site, ...]
    channels: tuple[int, ...] | None
    """`None` for all."""

    def arm(self) -> experiments.draw.Arm:
        """The arm; its edits are made per sample."""
        replaced = [str(site) for site in self.sites]
        said = {"replaced": replaced, "steps": self.steps, "tokens": self.tokens, "channels": self.channels}
        place = min(self.steps), self.block, int(self.what != "alpha")
        labels = {"what": self.what, "block": self.block, "column": self.column}
        return experiments.draw.Arm(f"{self.what} {self.block} {self.column}", (), labels, said, place)

    def edits(self, donor: experiments.clean.Clean, donors: experiments.moved.Donors | None) -> list[Any]:
        """The edits, with values of the donor, the clean run."""
        found: list[Any] = []
        if donors is not None and self.what in MOVED:
            place = self.steps, [self.block], self.tokens
            return [donors.edit(self.what, *place, stream=site.stream) for site in self.sites]
        source = f"the clean run of {donor.row.text!r}"
        for site in self.sites:
            where: dict[str, Any] = {"blocks": [self.block], "steps": self.steps, "stream": site.stream}
            where["at"] = "hidden" if site.gate is None else f"{site.kind}.{site.gate}"
            where["tokens"] = self.tokens if site.kind == "hidden" else None
            values = donor.values(self.steps, [site], f"{source}, seed {donor.row.seed}", self.channels)
            found.append(interventions.Replace(values, channels=self.channels, **where))
        if self.what == "everything":
            found.append(interventions.conditioning.ReplaceLater(self.block, donor.conditioning, source, self.steps))
        return found


def design(request: Request) -> experiments.design.Drawing:
    """Arms: the corrupted and the clean picture, then one per cell."""
    options: Options = request.options
    clean, prepared = prepare_pairs(request, options.clean, options.corrupted)
    what, streams = _what(options), chosen_streams(prepared.model.anatomy, options.stream)
    moved = set(MOVED) & set(what)
    ranked = request.rank(prepared, options.channels, streams[0]) if moved else None
    cells = _cells(prepared, options, what, streams, ranked)
    keep = {(step, site) for cell in cells for site in cell.sites for step in cell.steps}
    tokens = [clean.layout.tokens(site.stream) if site.kind == "hidden" else 1 for _, site in keep]
    held = float(sum(tokens) * clean.model.anatomy.channels * clean.model.pipe.transformer.dtype.itemsize)

    def bind(row: Row, corrupted: experiments.clean.Clean) -> experiments.draw.EditsOf:
        theirs, everything = clean.plan.rows()[row.index], any(cell.what == "everything" for cell in cells)
        donor = experiments.clean.clean_run(clean, theirs, keep, keep_conditioning=everything)
        named = {cell.arm().name: cell for cell in cells}

        @functools.cache
        def third() -> experiments.clean.Clean:
            other = experiments.moved.third_row(clean.plan.rows(), theirs, row.text)
            if other is None:
                raise InputError("what: third needs another pair with a third prompt; give more lines, or leave it out")
            return experiments.clean.clean_run(clean, other, keep)

        donors = None
        if ranked is not None:
            control = ranked.random(prepared.plan.seed)
            donors = experiments.moved.Donors(donor, third, ranked.massive, control, prepared.plan.seed + row.index)

        ends: dict[str, Any] = {"corrupted": lambda: (), "clean": lambda: donor, analysis.patching.THIRD: third}
        return lambda arm: named[arm.name].edits(donor, donors) if arm.name in named else ends[arm.name]()

    pictures = ["corrupted", "clean"] + [analysis.patching.THIRD] * ("third" in what)
    ends = [experiments.draw.Arm(name, (), {"what": name, "block": -1, "column": "-"}) for name in pictures]
    parameters = {
        "clean": [row.text for row in clean.plan.rows()],
        "what": list(what),
        "stream": streams[0] if len(streams) == 1 else options.stream,
        "columns": "regions" if options.regions else "steps",
        "channels": ranked.massive if ranked else None,
        "control": ranked.random(prepared.plan.seed) if ranked else None,
    }
    arms = [*ends, *(cell.arm() for cell in cells)]
    donors = float(len(prepared.plan.rows()) * len(prepared.schedule.timesteps))
    measure = lambda made: {f"patching_{metric}": analysis.patching.recovered(made, metric) for metric in METRICS}  # noqa: E731
    return request.drawing(prepared, arms, parameters, measure, bind=bind, further=donors, held=held)


def _what(options: Options) -> list[str]:
    """Parse `what`. A gate has no tokens, so it cannot be patched in a region."""
    if options.what is None:
        return [name for name in DEFAULT if options.regions is None or name != "alpha"]
    found = listed(options.what, "what", WHATS)
    if options.regions is not None and {"alpha", "everything"} & set(found):
        raise InputError("what: alpha and everything have no regions; leave them out, or patch windows of steps")
    return found


def _cells(
    prepared: Prepared, options: Options, what: Sequence[str], streams: Sequence[str], ranked: experiments.ranking.Ranked | None
) -> tuple[Cell, ...]:
    """The cells that have a site to replace."""
    anatomy = prepared.model.anatomy
    wanted = select_indices(options.blocks, len(anatomy.blocks), "blocks")
    columns = _columns(prepared, options.windows, options.regions)
    chosen = {} if ranked is None else dict.fromkeys(MOVED, ranked.massive)
    if ranked is not None:
        chosen["control"] = ranked.random(prepared.plan.seed)
    cells = tuple(
        Cell(name, block, steps, tokens, column, tuple(sites), chosen.get(name))
        for name in what
        for block in wanted
        for column, (steps, tokens) in columns.items()
        if (sites := sites_of(anatomy, name, block, streams))
    )
    if not cells:
        raise InputError(f"what: blocks {list(wanted)} have nothing of {', '.join(what)} in the {options.stream} stream")
    return cells


def sites_of(anatomy: Anatomy, what: str, block: int, streams: Sequence[str]) -> list[Site]:
    """The existing sites of a block that a cell replaces."""
    described = anatomy.blocks[block]
    if what == "alpha":
        owned = [site for owner, _, site in described.chunk_sites(block) if site.stream not in owner.shared_with]
        return [site for site in owned if site.kind == "alpha" and site.stream in streams]
    wanted = anatomy.stream_names if what == "everything" else streams
    return [Site(block, stream, "hidden") for stream in wanted if stream in described.hidden]


def _columns(prepared: Prepared, windows: int | None, regions: int | None) -> dict[str, Column]:
    """The columns of the grid of cells, by name."""
    import numpy as np

    steps = len(prepared.schedule.timesteps)
    if windows is not None and regions is not None:
        raise InputError("windows and regions: give one of them; cells are blocks x windows of steps, or blocks x regions")
    if regions is None:
        count = steps if windows is None else at_least("windows", windows, 1)
        if count > steps:
            raise InputError(f"windows must be at most {steps}, the steps; got {count}")
        parts = [tuple(int(step) for step in part) for part in np.array_split(np.arange(steps), count)]
        return {str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}": (part, None) for part in parts}
    rows, columns = prepared.layout.grid
    side = at_least("regions", regions, 1)
    if side > min(rows, columns):
        raise InputError(f"regions must be at most {min(rows, columns)}, the tokens along a side; got {side}")
    grid = np.arange(rows * columns).reshape(rows, columns)
    return {
        f"y{y} x{x}": (tuple(range(steps)), prepared.layout.everywhere(part.ravel().tolist()))
        for y, band in enumerate(np.array_split(grid, side, axis=0))
        for x, part in enumerate(np.array_split(band, side, axis=1))
    }


def _best(found: xr.Dataset) -> xr.Dataset:
    """The best cell of every block, and the mean over cells."""
    best = found["recovered"].fillna(float("-inf")).argmax("column")
    return found.isel(column=best).assign(mean=found["recovered"].mean("column"))


patch = Kind(
    "patch",
    "Patch clean values into the corrupted run at every block x step, and measure how much of the picture is recovered.",
    Options,
    design,
    {"patching": Shown("patching_{metric}", table("patching", _best))},
    {
        "patching": Figure(
            "effects.patch_grid",
            "patching_{metric}",
            choices={"metric": METRICS},
            labels=("column", "block", "what"),
        )
    },
    controls={"what": CONTROLS},
    ends=(0, 1),
)
