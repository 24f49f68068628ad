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
from pathlib import Path
from typing import Any

import numpy as np

from interp.analysis import patching
from interp.errors import InputError
from interp.executor import HERE, Executor, Stopped
from interp.experiments.choose import Ranked, rank
from interp.experiments.clean import Clean, clean_run
from interp.experiments.draw import BATCH_SIZE, Arm, OnProgress, cost, draw
from interp.interventions.conditioning import ReplaceLater
from interp.interventions.edits import Replace
from interp.interventions.values import Values
from interp.models.anatomy import Anatomy
from interp.plan import Record, Row, as_json, at_least
from interp.sites import Site, parse_indices, resolve_indices
from interp.store.experiment import Experiment
from interp.store.opened import Run
from interp.store.places import located
from interp.store.results import write_result
from interp.tracing.model import Model, load
from interp.tracing.prepare import Prepared, prepare

WHATS = ("hidden", "massive", "control", "alpha", "everything")
DEFAULT = ("hidden", "massive", "control", "alpha")
STREAMS = {"image": ("image",), "text": ("text",), "both": ("image", "text")}


@dataclasses.dataclass(frozen=True)
class _Cell:
    """Where one arm patches."""

    what: str
    block: int
    steps: tuple[int, ...]
    tokens: tuple[int, ...] | None
    column: str


@dataclasses.dataclass(frozen=True)
class PatchGrid:
    """A patch grid that is ready to be drawn."""

    prepared: Prepared
    """Of the corrupted prompts."""
    clean: Prepared
    out: Path
    cells: tuple[_Cell, ...]
    streams: tuple[str, ...]
    ranked: Ranked | None
    parameters: dict[str, Any]

    @property
    def arms(self) -> list[Arm]:
        """The corrupted and the clean picture, then a cell each."""
        ends = [Arm(name, (), _labels(name, -1, "-")) for name in ("corrupted", "clean")]
        return ends + [
            Arm(f"{c.what} {c.block} {c.column}", (), _labels(c.what, c.block, c.column), self._said(c), self._place(c))
            for c in self.cells
        ]

    @property
    def cost(self) -> dict[str, float]:
        """Pictures, and forwards of one row; the clean prompts' runs are among them."""
        found = cost(self.prepared, self.arms)
        rows, steps = len(self.prepared.plan.rows()), len(self.prepared.schedule.timesteps)
        return {**found, "forwards": found["forwards"] + rows * steps}

    @property
    def memory(self) -> float:
        """Bytes of the clean run's states that are held while a pair is drawn."""
        anatomy, size = self.prepared.model.anatomy, 0
        for _, site in self._keep():
            tokens = self.prepared.layout.tokens(site.stream) if site.kind == "hidden" else 1
            size += tokens * anatomy.channels * self.prepared.model.pipe.transformer.dtype.itemsize
        return float(size)

    def run(
        self,
        *,
        batch_size: int = BATCH_SIZE,
        through: Executor = HERE,
        on_progress: OnProgress = lambda progress: None,
        stopped: Stopped = lambda: False,
    ) -> Experiment:
        """Draw what is missing and keep the result `patching` in the store."""
        drawn = draw(
            self.prepared,
            self.arms,
            experiment="patch",
            parameters=self.parameters,
            out=self.out,
            bind=self._bind,
            batch_size=batch_size,
            through=through,
            on_progress=on_progress,
            stopped=stopped,
        )
        for metric in patching.METRICS:
            write_result(drawn.path, f"patching_{metric}", patching.recovered(drawn, metric))
        return drawn

    def _bind(self, row: Row, corrupted: Clean) -> Any:
        entering = any(cell.what == "everything" for cell in self.cells)
        donor = clean_run(self.clean, self.clean.plan.rows()[row.index], self._keep(), keep_conditioning=entering)
        cells = {f"{cell.what} {cell.block} {cell.column}": cell for cell in self.cells}

        def edits_of(arm: Arm) -> Any:
            if arm.name == "clean":
                return donor
            if arm.name == "corrupted":
                return ()
            cell = cells[arm.name]
            edits: list[Any] = [self._edit(cell, site, donor) for site in self._sites(cell)]
            if cell.what == "everything":
                edits.append(ReplaceLater(cell.block, donor.conditioning, f"the clean run of {donor.row.text!r}", cell.steps))
            return edits

        return edits_of

    def _edit(self, cell: _Cell, site: Site, donor: Clean) -> Replace:
        channels = self._channels(cell)
        states = [donor.states[step, site].float() for step in cell.steps]
        array = np.stack([(state if channels is None else state[..., list(channels)]).numpy() for state in states])
        axes: dict[str, tuple[int, ...]] = {"step": cell.steps, "block": (cell.block,)}
        if site.kind == "hidden":
            axes["token"] = tuple(range(array.shape[1]))
        axes["channel"] = tuple(range(array.shape[-1])) if channels is None else channels
        values = Values(array[:, None], axes, f"the clean run of {donor.row.text!r}, seed {donor.row.seed}")
        at = "hidden" if site.gate is None else f"{site.kind}.{site.gate}"
        where: dict[str, Any] = {"blocks": [cell.block], "steps": cell.steps, "stream": site.stream, "at": at}
        return Replace(values, channels=channels, tokens=cell.tokens if site.kind == "hidden" else None, **where)

    def _channels(self, cell: _Cell) -> tuple[int, ...] | None:
        if cell.what == "massive" and self.ranked is not None:
            return self.ranked.massive
        if cell.what == "control" and self.ranked is not None:
            return self.ranked.random(self.prepared.plan.seed)
        return None

    def _sites(self, cell: _Cell) -> list[Site]:
        return sites_of(self.prepared.model.anatomy, cell.what, cell.block, self.streams)

    def _keep(self) -> set[tuple[int, Site]]:
        return {(step, site) for cell in self.cells for site in self._sites(cell) for step in cell.steps}

    def _said(self, cell: _Cell) -> dict[str, Any]:
        """What a cell does, for the store."""
        tokens = None if cell.tokens is None else list(cell.tokens)
        sites = [str(site) for site in self._sites(cell)]
        channels = self._channels(cell)
        return {
            "replaced": sites,
            "steps": list(cell.steps),
            "tokens": tokens,
            "channels": None if channels is None else list(channels),
        }

    def _place(self, cell: _Cell) -> tuple[int, int, int]:
        return min(cell.steps), cell.block, int(cell.what != "alpha")


def patch(
    model: Model | str | Path,
    clean: Sequence[str] | str | Path,
    corrupted: Sequence[str] | str | Path,
    *,
    out: str | Path,
    what: Sequence[str] | None = None,
    blocks: Sequence[int] | str | None = None,
    windows: int | None = None,
    regions: int | None = None,
    stream: str = "image",
    channels: Sequence[int] | str | None = None,
    run: Run | str | Path | None = None,
    batch_size: int = BATCH_SIZE,
    **arguments: Any,
) -> PatchGrid:
    """Prepare a patch grid over pairs of prompts: `patch(...).run()` draws it.

    Cells are blocks x `windows` equal parts of the steps (by default every step), or blocks x `regions` x `regions` parts of
    the picture at all steps. `what` is by default hidden, massive, control and, over steps, alpha. `stream` is image, text or
    both. `arguments` are those of `interp.trace`.
    """
    arguments = {"record": Record(stats=False, gates=False), **arguments}
    model = model if isinstance(model, Model) else load(model)
    prepared, donor = prepare(model, corrupted, **arguments), prepare(model, clean, **arguments)
    check_pairs(donor.plan.rows(), prepared.plan.rows())
    anatomy = prepared.model.anatomy
    if stream not in STREAMS or not set(STREAMS[stream]) & set(anatomy.streams):
        raise InputError(f"stream must be one of {', '.join(anatomy.streams)} or both; got {stream!r}")
    if what is None:  # a gate has no tokens: it cannot be patched in a part of the picture
        what = DEFAULT if regions is None else tuple(name for name in DEFAULT if name != "alpha")
    wrong = [name for name in what if name not in WHATS]
    if regions is not None and {"alpha", "everything"} & set(what):
        raise InputError("what: alpha and everything have no regions; leave them out, or patch windows of steps")
    if wrong or not what:
        raise InputError(f"what must be one or more of {', '.join(WHATS)}; got {wrong[0] if wrong else 'none'!r}")
    streams = tuple(name for name in STREAMS[stream] if name in anatomy.streams)
    wanted = resolve_indices(parse_indices(blocks, "blocks"), len(anatomy.blocks), "blocks")
    columns = _columns(prepared, windows, regions)
    cells = tuple(
        _Cell(name, block, steps, tokens, column)
        for name in what
        for block in wanted
        for column, (steps, tokens) in columns.items()
        if sites_of(anatomy, name, block, streams)
    )
    if not cells:
        raise InputError(f"what: blocks {list(wanted)} have nothing of {', '.join(what)} in the {stream} stream")
    ranked = None
    if {"massive", "control"} & set(what):
        ranked = rank(prepared, located(out), channels=channels, run=run, stream=streams[0], batch_size=batch_size)
    parameters = {
        "clean": [row.text for row in donor.plan.rows()],
        "what": list(what),
        "stream": stream,
        "columns": "regions" if regions else "steps",
        "channels": ranked.massive if ranked else None,
        "control": ranked.random(prepared.plan.seed) if ranked else None,
    }
    return PatchGrid(prepared, donor, located(out), cells, streams, ranked, as_json(parameters, "parameters"))


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


def check_pairs(first: Sequence[Row], second: Sequence[Row], names: tuple[str, str] = ("clean", "corrupted")) -> None:
    """Rows must come in pairs: as many of both, the same seeds, different texts."""
    one, other = names
    if len(first) != len(second):
        raise InputError(f"{one} and {other} prompts come in pairs; got {len(first)} and {len(second)}")
    for a, b in zip(first, second, strict=True):
        if a.seed != b.seed:
            raise InputError(f"pair {a.index}: seeds {a.seed} and {b.seed}; a line that is repeated must be repeated in both")
        if a.text == b.text:
            raise InputError(f"pair {a.index}: {one} and {other} are the same prompt, {a.text!r}")


def _labels(what: str, block: int, column: str) -> dict[str, Any]:
    return {"what": what, "block": block, "column": column}
