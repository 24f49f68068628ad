"""The experiments of a campaign, each in a store of its own that a killed campaign goes on with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from interp.executor import Stopped
from interp.experiments import collapse, disrupt, dose, gates, govern, lens, patch, swap, sweep, transport
from interp.findings.setup import Setup, channels_of
from interp.guidance.presets import PRESETS
from interp.plan import Record
from interp.run import execute
from interp.sites import Select
from interp.store.opened import Run, open_run
from interp.store.results import write_dataset
from interp.tracing.model import load
from interp.tracing.prepare import prepare

OnProgress = Callable[[int, int], None]
"""(done, total) rows, pictures or arms of a stage."""
LENS_ROWS, GATE_TIMESTEPS = 4, 50
DRAWS = 3  # of each random control


@dataclasses.dataclass(frozen=True)
class Hooks:
    """Who is told, and who may stop a stage."""

    on_progress: OnProgress = lambda done, total: None
    stopped: Stopped = lambda: False

    def drawing(self) -> dict[str, Any]:
        """For experiments that draw."""
        return {"on_progress": lambda state: self.on_progress(state.done, state.total), "stopped": self.stopped}


@dataclasses.dataclass(frozen=True)
class Pace:
    """Seconds, measured on this machine and model."""

    drawn: float
    """Of a forward of one row in a plain draw."""
    traced: float
    """Of one in a trace of statistics and gates."""
    store: float
    """Of a traced store, whatever its rows: created, summed up, closed."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One experiment."""

    name: str
    about: str
    most: Callable[[Setup], float]
    """Forwards of one row through the transformer, at most: what is forked off or shared makes them fewer."""
    run: Callable[[Setup, Hooks], None]
    stores: Callable[[Setup], int] = lambda setup: 0
    """Stores of traces that it makes; 0 of one that draws."""

    def seconds(self, setup: Setup, pace: Pace) -> float:
        """How long it takes at most, forwards being as slow as measured."""
        stores = self.stores(setup)
        return self.most(setup) * (pace.traced if stores else pace.drawn) + stores * pace.store

    def path(self, setup: Setup) -> Path:
        """Where it is kept."""
        return setup.folder / f"{self.name}.zarr"


def steps_of(setup: Setup) -> int:
    """Sampling steps of one picture."""
    return setup.steps if setup.steps is not None else int(setup.model.defaults.steps)


def _traced(setup: Setup, name: str, record: Record, hooks: Hooks, repeats: int, model: Any = None) -> None:
    prepared = prepare(model or setup.model, setup.texts, record=record, repeats=repeats, **setup.sampling)
    told: Any = lambda state: hooks.on_progress(state.rows_done, state.rows_total)  # noqa: E731
    path = setup.folder / f"{name}.zarr"
    execute(prepared, path, batch_size=setup.batch_size, on_progress=told, stopped=hooks.stopped)


def crossed_run(setup: Setup) -> Run:
    """The run that channels are chosen by."""
    return open_run(setup.folder / "crossed.zarr")


def _experiment(
    make: Callable[[Setup, Mapping[str, Any]], Any], *, against_real: bool = False
) -> Callable[[Setup, Hooks], None]:
    """An experiment, drawn with the massive channels of the crossed run; some are measured against real pictures."""

    def run(setup: Setup, hooks: Hooks) -> None:
        given = {"run": crossed_run(setup), "batch_size": setup.batch_size, **setup.sampling}
        real = {"reference": setup.reference} if against_real else {}
        make(setup, given).run(batch_size=setup.batch_size, **hooks.drawing(), **real)

    return run


def _crossed(setup: Setup, hooks: Hooks) -> None:
    _traced(setup, "crossed", Record(branches=True), hooks, setup.repeats)


def _states(setup: Setup, hooks: Hooks) -> None:
    _traced(setup, "states", Record(gates=False, hidden=Select(steps=(-1,))), hooks, 1)


def _others(setup: Setup, hooks: Hooks) -> None:
    for number, name in enumerate(setup.others):
        _traced(setup, other_name(number), Record(gates=False), hooks, 1, load(name))


def other_name(number: int) -> str:
    """The store of another checkpoint or size."""
    return f"other-{number}"


def _gates(setup: Setup, hooks: Hooks) -> None:
    _once(setup, "gates", lambda channels: gates.tabulate(setup.model, setup.texts, channels, on_progress=hooks.on_progress))


def _govern(setup: Setup, hooks: Hooks) -> None:
    def clamp(channels: list[int]) -> xr.Dataset:
        told: Any = lambda done, total, name: hooks.on_progress(done, total)  # noqa: E731
        given: dict[str, Any] = {"channels": channels, "batch_size": setup.batch_size, **setup.sampling}
        return govern.clamp_alpha(setup.model, setup.texts, out=setup.folder / "govern", on_arm=told, **given)

    _once(setup, "govern", clamp)


def _once(setup: Setup, name: str, make: Callable[[list[int]], xr.Dataset]) -> None:
    """A result of its own, unless it is there."""
    path = setup.folder / f"{name}.zarr"
    if not path.exists():
        write_dataset(path, make(channels_of(crossed_run(setup))[0]))


def _disrupt(setup: Setup, given: Mapping[str, Any]) -> Any:
    chosen = channels_of(given["run"])[0]
    blocks: list[int | str] = [setup.block, "all"]
    return disrupt.disrupt(
        setup.model,
        setup.texts,
        out=setup.folder / "disrupt.zarr",
        channels=chosen,
        blocks=blocks,
        repeats_of_controls=DRAWS,
        **given,
    )


def _collapse(setup: Setup, given: Mapping[str, Any]) -> Any:
    return collapse.collapse(setup.model, setup.texts, out=setup.folder / "collapse.zarr", **given)


def _dose(setup: Setup, given: Mapping[str, Any]) -> Any:
    return dose.dose(
        setup.model,
        setup.texts,
        out=setup.folder / "dose.zarr",
        counts=setup.counts,
        windows=("all",),
        budget=setup.budget,
        **given,
    )


def _transport(setup: Setup, given: Mapping[str, Any]) -> Any:
    chosen, (source, target) = channels_of(given["run"])[0], setup.halves
    out = setup.folder / "transport.zarr"
    return transport.transport(setup.model, source, target, out=out, channels=chosen, strengths=[1.0], **given)


def _patch(setup: Setup, given: Mapping[str, Any]) -> Any:
    chosen, (clean, corrupted) = channels_of(given["run"])[0], setup.halves
    out = setup.folder / "patch.zarr"
    return patch.patch(setup.model, clean, corrupted, out=out, what=list(PATCHED), windows=1, channels=chosen, **given)


PATCHED = ("hidden", "massive", "control")


def _swap(setup: Setup, hooks: Hooks) -> None:
    run = crossed_run(setup)
    given: dict[str, Any] = {"channels": channels_of(run)[0], "run": run, "on_row": hooks.on_progress, **setup.sampling}
    swap.swap(setup.model, setup.texts, out=setup.folder / "swap.zarr", **given)


def _lens(setup: Setup, hooks: Hooks) -> None:
    run, steps = crossed_run(setup), steps_of(setup)
    shown = sorted({0, steps // 2, steps - 1})
    told: Any = lambda state: hooks.on_progress(state.done, state.total)  # noqa: E731
    given: dict[str, Any] = {"steps_shown": shown, "run": run, "without": channels_of(run)[0], **setup.sampling}
    lens.lens(setup.model, setup.texts[:LENS_ROWS], out=setup.folder / "lens.zarr", on_progress=told, **given)


def _guidance(setup: Setup, hooks: Hooks) -> None:
    out = setup.folder / "guidance.zarr"
    made = sweep.sweep(setup.model, setup.texts, list(guided(setup).values()), out=out, **setup.sampling)
    made.run(batch_size=setup.batch_size, **hooks.drawing())


def guided(setup: Setup) -> dict[str, str]:
    """Detail Guidance without and with classifier-free guidance, at the model's preset or, without one, at w = 1."""
    preset = PRESETS.get(setup.model.name)
    chosen, block = channels_of(crossed_run(setup))[0], setup.block
    alone, (factor, combined) = 1.0, (3.0, 1.0)
    if preset is not None and preset.channels:
        chosen, alone = list(preset.channels), preset.alone
        factor, combined = preset.combined or (factor, alone)
    where = f"channels={','.join(map(str, chosen))}:block={block}"
    cfg = f"cfg:{factor + 1:g}"
    return {"none": "none", "dg": f"dg:{alone:g}:{where}", "cfg": cfg, "cfg+dg": f"{cfg}+dg:{combined:g}:{where}"}


def _rows(setup: Setup, repeats: int = 1) -> int:
    return len(setup.texts) * repeats * steps_of(setup)


def _blocks(setup: Setup) -> int:
    return len(setup.model.anatomy.blocks)


def _one(setup: Setup) -> int:
    return 1


def _clamped(setup: Setup) -> int:
    """Runs of the clamp test: the original, and three for every block and gate."""
    return 1 + 3 * _blocks(setup) * len(setup.model.anatomy.gates)


STAGES: tuple[Stage, ...] = (
    Stage("crossed", "statistics, gates and branches, prompts x seeds", lambda s: _rows(s, s.repeats), _crossed, _one),
    Stage("states", "image tokens after the last step", _rows, _states, _one),
    Stage(
        "others",
        "statistics of other checkpoints or sizes",
        lambda s: len(s.others) * _rows(s),
        _others,
        lambda s: len(s.others),
    ),
    Stage("gates", "alpha over prompts x timesteps, no block run", lambda s: 0.0, _gates),
    Stage("govern", "alpha clamped, gate by gate", lambda s: _clamped(s) * _rows(s), _govern, lambda s: _clamped(s)),
    Stage(
        "disrupt",
        "massive channels zeroed, with every control",
        lambda s: (2 + 2 * (6 + 2 * DRAWS)) * _rows(s),
        _experiment(_disrupt, against_real=True),
    ),
    Stage(
        "collapse",
        "the top channels of every block zeroed",
        lambda s: (2 + 3 * len(collapse.COUNTS)) * _rows(s),
        _experiment(_collapse, against_real=True),
    ),
    Stage(
        "dose",
        "dose and response",
        lambda s: (s.budget + len(s.texts)) * steps_of(s),
        _experiment(_dose, against_real=True),
    ),
    Stage("transport", "a source's channels in a target's run", lambda s: 6 * _rows(s) / 2, _experiment(_transport)),
    Stage(
        "patch", "clean values in corrupted runs", lambda s: (3 + len(PATCHED) * _blocks(s)) * _rows(s) / 2, _experiment(_patch)
    ),
    Stage("swap", "what the model is told, swapped", lambda s: 2 * _rows(s) + 20 * len(s.texts), _swap),
    Stage("lens", "pictures painted from every block", lambda s: LENS_ROWS * (steps_of(s) + 6 * _blocks(s)), _lens),
    Stage("guidance", "Detail Guidance without and with CFG", lambda s: 8 * _rows(s), _guidance),
)
