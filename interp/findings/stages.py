"""The experiments of a campaign, each with its own store, from which a stopped campaign resumes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from interp.base.executor import Execution
from interp.base.options import Sampling
from interp.base.plan import Record
from interp.base.sites import Select
from interp.experiments.arguments import MOVED
from interp.experiments.kind import Kind
from interp.experiments.kinds.collapse import COUNTS, collapse
from interp.experiments.kinds.disrupt import disrupt
from interp.experiments.kinds.dose import dose
from interp.experiments.kinds.gates import gates
from interp.experiments.kinds.govern import ARMS, govern
from interp.experiments.kinds.lens import lens
from interp.experiments.kinds.patch import patch
from interp.experiments.kinds.swap import swap
from interp.experiments.kinds.sweep import sweep
from interp.experiments.kinds.transport import transport
from interp.findings.setup import Setup, channels_of
from interp.guidance.presets import PRESETS
from interp.runs.run import execute
from interp.store.experiment import is_experiment
from interp.store.locations import exists
from interp.store.traced_run import Run, open_run
from interp.tracing.model import load
from interp.tracing.prepare import prepare

LENS_ROWS = 4
DRAWS = 3  # of each random control
PATCHED = ("hidden", *MOVED)


@dataclasses.dataclass(frozen=True)
class Pace:
    """Seconds, measured on this machine and model."""

    drawn: float
    """A forward of one row in a plain draw."""
    traced: float
    """A forward of one row in a trace of statistics and gates."""
    store: float
    """Fixed cost of a traced store: create, summarise, close."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One experiment."""

    name: str
    about: str
    most: Callable[[Setup], float]
    """Upper bound of forwards of one row; forked and shared runs need fewer."""
    run: Callable[[Setup, Execution], None]
    stores: Callable[[Setup], int] = lambda setup: 0
    """Number of trace stores that it makes; 0 if it draws."""
    kind: Kind | None = None
    """The experiment; `None` for traces."""

    def seconds(self, setup: Setup, pace: Pace) -> float:
        """Upper bound of the time, in seconds, at the measured pace."""
        stores = self.stores(setup)
        return self.most(setup) * (pace.traced if stores else pace.drawn) + stores * pace.store

    def path(self, setup: Setup) -> Path:
        """The path of its store."""
        return setup.folder / f"{self.name}.zarr"


def steps_of(setup: Setup) -> int:
    """Sampling steps of one picture."""
    return setup.drawn.steps if setup.drawn.steps is not None else int(setup.model.defaults.steps)


def _rows(setup: Setup) -> int:
    """Forwards of one row that draw every prompt once."""
    return len(setup.texts) * steps_of(setup)


def _pictures(setup: Setup) -> int:
    """Forwards of one row that draw every prompt with each of its noises."""
    return setup.drawn.repeats * _rows(setup)


def _blocks(setup: Setup) -> int:
    return len(setup.model.anatomy.blocks)


def crossed_run(setup: Setup) -> Run:
    """The run that selects the channels."""
    return open_run(setup.folder / "crossed.zarr")


def other_name(number: int) -> str:
    """The store of another checkpoint or size."""
    return f"other-{number}"


def _tracing(
    name: str,
    about: str,
    record: Record,
    repeats: Callable[[Setup], int] = lambda setup: 1,
    models: Callable[[Setup], Mapping[str, Any]] | None = None,
) -> Stage:
    """A stage that traces every prompt: the campaign's model, or `models`, by the names of their stores."""

    def traced(setup: Setup) -> Mapping[str, Any]:
        return {name: setup.model} if models is None else models(setup)

    def run(setup: Setup, how: Execution) -> None:
        for store, model in traced(setup).items():
            loaded = load(model) if isinstance(model, str) else model
            prepared = prepare(loaded, setup.texts, record=record, repeats=repeats(setup), **setup.sampling)
            execute(prepared, setup.folder / f"{store}.zarr", how)

    def most(setup: Setup) -> float:
        return len(traced(setup)) * repeats(setup) * _rows(setup)

    return Stage(name, about, most, run, lambda setup: len(traced(setup)))


def _experiment(
    kind: Kind,
    about: str,
    most: Callable[[Setup], float],
    options: Callable[[Setup], Mapping[str, Any]] = lambda setup: {},
    *,
    name: str = "",
    stores: Callable[[Setup], int] = lambda setup: 0,
    once: bool = False,
) -> Stage:
    """A stage that runs an experiment with options from the setup; channels are the massive ones of the crossed run.

    `once`: each prompt with one noise, for experiments that cost the most or show single pictures.
    """
    named = name or kind.name

    def run(setup: Setup, how: Execution) -> None:
        crossed, path = crossed_run(setup), setup.folder / f"{named}.zarr"
        if exists(path) and not is_experiment(path):  # a bare result, as earlier campaigns stored some
            return
        known = {"prompts": setup.texts, "channels": channels_of(crossed)[0], "run": crossed, "reference": setup.reference}
        has = {field.name for field in dataclasses.fields(kind.options)}
        given = {**{field: value for field, value in known.items() if field in has}, **options(setup)}
        drawn = {"settings": setup.drawn.settings} if kind is gates else setup.sampling
        sampling = Sampling(**drawn, repeats=1 if once else setup.drawn.repeats)
        kind.prepare(setup.model, kind.options(**given), sampling, how, out=path).run()

    return Stage(named, about, most, run, stores, kind)


def _lens_options(setup: Setup) -> dict[str, Any]:
    steps = steps_of(setup)
    shown = sorted({0, steps // 2, steps - 1})
    return {"prompts": setup.texts[:LENS_ROWS], "steps_shown": shown, "without": channels_of(crossed_run(setup))[0]}


def guided(setup: Setup) -> dict[str, str]:
    """Detail Guidance without and with classifier-free guidance, at the model's preset, else at w = 1."""
    preset = PRESETS.get(setup.model.name)
    chosen, block = channels_of(crossed_run(setup))[0], setup.block
    alone, (factor, combined) = 1.0, (3.0, 1.0)
    if preset is not None and preset.channels:
        chosen, alone = list(preset.channels), preset.alone
        factor, combined = preset.combined or (factor, alone)
    where = f"channels={','.join(map(str, chosen))}:block={block}"
    cfg = f"cfg:{factor + 1:g}"
    return {"none": "none", "dg": f"dg:{alone:g}:{where}", "cfg": cfg, "cfg+dg": f"{cfg}+dg:{combined:g}:{where}"}


def _clamped(setup: Setup) -> int:
    """Number of runs of the clamp test: the original, and one per edit, block and gate."""
    return 1 + len(ARMS) * _blocks(setup) * len(setup.model.anatomy.gates)


STAGES: tuple[Stage, ...] = (
    _tracing("crossed", "statistics, gates and branches, prompts x seeds", Record(branches=True), lambda s: s.drawn.repeats),
    _tracing("states", "image tokens after the last step", Record(gates=False, hidden=Select(steps=(-1,)))),
    _tracing(
        "frames",
        "statistics of a video's latent frames",
        Record(stats=False, gates=False, frames=True),
        lambda s: s.drawn.repeats,
    ),
    _tracing(
        "others",
        "statistics of other checkpoints or sizes",
        Record(gates=False),
        models=lambda s: {other_name(number): name for number, name in enumerate(s.others)},
    ),
    _experiment(gates, "alpha over prompts x timesteps, no block run", lambda s: 0.0, once=True),
    _experiment(govern, "alpha clamped, gate by gate", lambda s: _clamped(s) * _rows(s), stores=_clamped, once=True),
    _experiment(
        disrupt,
        "massive channels zeroed, with matched controls",
        lambda s: (2 + 2 * (6 + 2 * DRAWS)) * _pictures(s),
        lambda s: {"blocks": [s.block, "all"], "controls": DRAWS},
    ),
    _experiment(collapse, "the top channels of every block zeroed", lambda s: (2 + 3 * len(COUNTS)) * _pictures(s)),
    _experiment(
        dose,
        "dose and response",
        lambda s: (s.budget + len(s.texts)) * steps_of(s),
        lambda s: {"counts": s.counts, "windows": ("all",), "budget": s.budget},
        once=True,
    ),
    _experiment(
        transport,
        "a source's channels in a target's run",
        lambda s: 11 * _pictures(s) / 2,
        lambda s: {"source": s.halves[0], "target": s.halves[1], "strengths": [1.0]},
    ),
    _experiment(
        patch,
        "clean values in corrupted runs",
        lambda s: (4 + len(PATCHED) * _blocks(s)) * _pictures(s) / 2,
        lambda s: {"clean": s.halves[0], "corrupted": s.halves[1], "what": PATCHED, "windows": 1},
    ),
    _experiment(swap, "timestep, text and latents swapped", lambda s: 2 * _pictures(s) + 20 * s.drawn.repeats * len(s.texts)),
    _experiment(
        lens,
        "pictures decoded from every block",
        lambda s: LENS_ROWS * (steps_of(s) + 6 * _blocks(s)),
        _lens_options,
        once=True,
    ),
    _experiment(
        sweep,
        "Detail Guidance without and with CFG",
        lambda s: 8 * _pictures(s),
        lambda s: {"guidance": list(guided(s).values()), "reference": None},
        name="guidance",
    ),
)
