"""Activation patching over blocks and steps: the clean prompt's values in the corrupted prompt's run, cell by cell.

clean and corrupted are drawn from one seed. A cell replaces, at one block and in one window of steps (or in one region of the
picture), what the corrupted run holds by what the clean run held there; recovered = 0 is the corrupted picture, 1 the clean.

    hidden       the whole state: what the block hands on
    massive      the massive channels of it alone
    control      as many ordinary channels
    alpha        the block's AdaLN gates
    everything   the state of both streams, and all conditioning that enters again after it, in the same steps
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp import analysis, experiments
from interp.analysis.table import Table
from interp.base.errors import InputError
from interp.base.options import Blocks, Channels, Prompts, Stream
from interp.base.plan import at_least
from interp.base.sites import Site, parse_indices, resolve_indices
from interp.experiments.arguments import STREAMS, RankedBy, check_pairs, listed
from interp.experiments.kind import Kind, Request
from interp.experiments.shown import Figure, Shown

if TYPE_CHECKING:
    import xarray as xr

    from interp.experiments.design import Drawing
    from interp.experiments.patches import Cell
    from interp.experiments.ranking import Ranked
    from interp.models.anatomy import Anatomy
    from interp.tracing.prepare import Prepared

WHATS = ("hidden", "massive", "control", "alpha", "everything")
DEFAULT = ("hidden", "massive", "control", "alpha")
METRICS = ("picture", "structure", "latents")


@dataclasses.dataclass(frozen=True)
class Options:
    """Which pairs of prompts, and the cells: blocks x equal parts of the steps, or x parts of the picture at all steps."""

    clean: Annotated[Prompts, Doc("A prompts file: whose values are put in.")]
    corrupted: Annotated[Prompts, Doc("A prompts file, line by line the pairs of --clean: where they are put in.")]
    what: Annotated[
        Sequence[str] | str | None,
        Doc("Any of hidden,massive,control,alpha,everything. [default: the first four; no alpha with --regions]"),
    ] = None
    blocks: Blocks = None
    windows: Annotated[int | None, Doc("Equal parts of the steps. [default: every step]")] = None
    regions: Annotated[int | None, Doc("Instead of steps: the picture in REGIONS x REGIONS parts.")] = None
    stream: Stream = "image"
    channels: Channels = None
    run: RankedBy = None
    metric: Annotated[str, Doc("picture, structure or latents: what is shown (all are kept).")] = "picture"

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise InputError(f"metric must be one of {', '.join(METRICS)}; got {self.metric!r}")


def design(request: Request) -> Drawing:
    """The corrupted and the clean picture, then a cell each."""
    options: Options = request.options
    prepared, clean = request.prepare(options.corrupted), request.prepare(options.clean)
    check_pairs(clean.plan.rows(), prepared.plan.rows())
    what, streams = _what(options), _streams(options.stream, prepared.model.anatomy)
    ranked = request.rank(prepared, options.channels, streams[0]) if {"massive", "control"} & set(what) else None
    cells = _cells(prepared, options, what, streams, ranked)
    grid = experiments.patches.Patches(clean, cells)
    ends = [experiments.draw.Arm(name, (), {"what": name, "block": -1, "column": "-"}) for name in ("corrupted", "clean")]
    parameters = {
        "clean": [row.text for row in clean.plan.rows()],
        "what": list(what),
        "stream": options.stream,
        "columns": "regions" if options.regions else "steps",
        "channels": ranked.massive if ranked else None,
        "control": ranked.random(prepared.plan.seed) if ranked else None,
    }
    donors = float(len(prepared.plan.rows()) * len(prepared.schedule.timesteps))
    arms = [*ends, *(cell.arm() for cell in cells)]
    return request.drawing(prepared, arms, parameters, recovered, bind=grid.bind, further=donors, held=grid.held())


def recovered(made: Any) -> dict[str, xr.Dataset]:
    """What each cell brings back, by every metric."""
    return {f"patching_{metric}": analysis.patching.recovered(made, metric) for metric in METRICS}


def _what(options: Options) -> list[str]:
    """What is patched; a gate has no tokens, so it cannot be patched in a part of the picture."""
    if options.what is None:
        return [name for name in DEFAULT if options.regions is None or name != "alpha"]
    found = listed(options.what, "what", WHATS)
    if options.regions is not None and {"alpha", "everything"} & set(found):
        raise InputError("what: alpha and everything have no regions; leave them out, or patch windows of steps")
    return found


def _streams(stream: str, anatomy: Anatomy) -> tuple[str, ...]:
    if stream not in STREAMS or not set(STREAMS[stream]) & set(anatomy.streams):
        raise InputError(f"stream must be one of {', '.join(anatomy.streams)} or both; got {stream!r}")
    return tuple(name for name in STREAMS[stream] if name in anatomy.streams)


def _cells(
    prepared: Prepared, options: Options, what: Sequence[str], streams: Sequence[str], ranked: Ranked | None
) -> tuple[Cell, ...]:
    """Those whose block has something to replace."""
    anatomy = prepared.model.anatomy
    wanted = resolve_indices(parse_indices(options.blocks, "blocks"), len(anatomy.blocks), "blocks")
    columns = _columns(prepared, options.windows, options.regions)
    chosen = {} if ranked is None else {"massive": ranked.massive, "control": ranked.random(prepared.plan.seed)}
    cells = tuple(
        experiments.patches.Cell(name, block, steps, tokens, column, tuple(sites), chosen.get(name))
        for name in what
        for block in wanted
        for column, (steps, tokens) in columns.items()
        if (sites := sites_of(anatomy, name, block, streams))
    )
    if not cells:
        raise InputError(f"what: blocks {list(wanted)} have nothing of {', '.join(what)} in the {options.stream} stream")
    return cells


def sites_of(anatomy: Anatomy, what: str, block: int, streams: Sequence[str]) -> list[Site]:
    """The sites that a cell replaces: those of its block that exist."""
    described = anatomy.blocks[block]
    if what == "alpha":
        owned = [site for owner, _, site in described.chunk_sites(block) if site.stream not in owner.shared_with]
        return [site for site in owned if site.kind == "alpha" and site.stream in streams]
    wanted = STREAMS["both"] if what == "everything" else streams
    return [Site(block, stream, "hidden") for stream in wanted if stream in described.hidden]


def _columns(
    prepared: Prepared, windows: int | None, regions: int | None
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...] | None]]:
    """Per column its steps and tokens."""
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
    rows, columns = prepared.layout.image_grid
    side = at_least("regions", regions, 1)
    if side > min(rows, columns):
        raise InputError(f"regions must be at most {min(rows, columns)}, the tokens along a side; got {side}")
    grid = np.arange(rows * columns).reshape(rows, columns)
    found: dict[str, tuple[tuple[int, ...], tuple[int, ...] | None]] = {}
    for y, band in enumerate(np.array_split(grid, side, axis=0)):
        for x, part in enumerate(np.array_split(band, side, axis=1)):
            found[f"y{y} x{x}"] = (tuple(range(steps)), prepared.layout.everywhere(part.ravel().tolist()))
    return found


def _best(one: xr.Dataset) -> xr.Dataset:
    return one.isel(column=int(one["recovered"].argmax("column")))


TABLE = Table(
    ("what", "block"),
    {
        "patched": "what",
        "block": "block",
        "recovered, mean of cells": lambda one: float(one["recovered"].mean()),
        "best cell": lambda one: str(_best(one)["column"].item()),
        "recovered there": lambda one: float(_best(one)["recovered"]),
        "interval": lambda one: [float(_best(one)[f"recovered_{end}"]) for end in ("low", "high")],
    },
    keep=lambda one: one["recovered"].notnull().any(),
)
patch = Kind(
    "patch",
    "Activation patching: clean values in the corrupted run at every block x step, and how much of the picture they recover.",
    Options,
    design,
    {"patching": Shown("patching_{metric}", TABLE)},
    {
        "patching": Figure(
            "effects.patch_grid",
            "patching_{metric}",
            choices={"metric": METRICS},
            labels=("column", "block", "what"),
        )
    },
    controls={"what": ("control",)},
    ends=(0, 1),
)
