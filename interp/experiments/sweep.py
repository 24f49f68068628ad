"""Sweeps over guidances: every prompt and seed under every setting, into one store. Detail Guidance, Fig. 8 (arXiv 2510.11538).

    sweep(model, prompts, ["none", "cfg:4", "cfg:4+dg:{0.5,1,2}:block={0,1,2}"], out="cache/sweep.zarr").run()

Braces are expanded to all combinations. The first setting is what the others are compared with.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interp.analysis import sweep as analysis
from interp.errors import InputError
from interp.executor import HERE, Executor, Stopped
from interp.experiments.clean import Array, sample
from interp.experiments.draw import BATCH_SIZE, Arm, OnProgress, Outputs, Unit, fill, measures
from interp.plan import Record, as_json, groups
from interp.store.experiment import Experiment
from interp.store.places import located
from interp.store.results import write_result
from interp.tracing.model import Model, load
from interp.tracing.prepare import Prepared, prepare

NONE = "none"
BRACES = re.compile(r"\{([^{}]*)\}")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep that is ready to be drawn."""

    prepared: tuple[Prepared, ...]
    """One for every setting."""
    out: Path
    settings: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    """What stood for the braces in each."""

    @property
    def arms(self) -> list[Arm]:
        """A setting each."""
        widest = max(len(values) for values in self.values)
        labels = [{f"value{n}": (v[n] if n < len(v) else "") for n in range(widest)} for v in self.values]
        return [Arm(text, (), {"guidance": text, **label}) for text, label in zip(self.settings, labels, strict=True)]

    @property
    def cost(self) -> dict[str, float]:
        """Pictures, and forwards of one row with forked branches."""
        rows, steps = len(self.prepared[0].plan.rows()), len(self.prepared[0].schedule.timesteps)
        each = [sum(rows_needed(one, step) for step in range(steps)) for one in self.prepared]
        return {"pictures": float(rows * len(self.prepared)), "forwards": float(rows * sum(each))}

    def run(
        self,
        *,
        reference: Any = None,
        batch_size: int = BATCH_SIZE,
        through: Executor = HERE,
        on_progress: OnProgress = lambda progress: None,
        stopped: Stopped = lambda: False,
    ) -> Experiment:
        """Draw what is missing and keep the result `sweep` in the store."""
        drawn = fill(
            dataclasses.replace(self.prepared[0], plan=dataclasses.replace(self.prepared[0].plan, guidance=None)),
            self.arms,
            BySettings(self.prepared, batch_size),
            experiment="sweep",
            parameters={"guidance": [one.plan.to_json()["guidance"] for one in self.prepared]},
            out=self.out,
            batch_size=batch_size,
            through=through,
            on_progress=on_progress,
            stopped=stopped,
        )
        write_result(drawn.path, "sweep", analysis.compare(drawn, reference))
        return drawn


@dataclasses.dataclass(frozen=True)
class BySettings:
    """Batches of rows under one setting: guidance is of the whole call."""

    prepared: tuple[Prepared, ...]
    """One for every setting."""
    batch_size: int

    def units(self, pending: Array) -> list[Unit]:
        """A batch under a setting each; rows that are drawn already keep the others company."""
        batches = groups(self.prepared[0].plan.rows(), self.batch_size)
        return [
            (batch, (setting,))
            for setting in range(len(self.prepared))
            for batch in batches
            if any(pending[row.index, setting] for row in batch)
        ]

    def draw(self, unit: Unit, pending: Callable[[int, int], bool]) -> Iterator[tuple[int, Outputs]]:
        """The pending rows of a batch."""
        batch, (setting,) = unit
        wanted = [place for place, row in enumerate(batch) if pending(row.index, setting)]
        if not wanted:
            return
        one = self.prepared[setting]
        guide = one.guide()
        with one.model.lock:
            if guide is None:
                images, latents = sample(one, batch)
            else:
                with guide.guiding(one.model.pipe.transformer):
                    images, latents = sample(one, batch)
        forwards = sum(rows_needed(one, step) for step in range(len(one.schedule.timesteps)))
        for place in wanted:
            outputs = {"image": images[place], "latents": latents[place]}
            yield batch[place].index, (setting, outputs, measures(np.nan, np.nan, forwards))


def rows_needed(prepared: Prepared, step: int) -> float:
    """Forwards of one row that a step takes: the conditional one, whole branches, and the blocks after a fork."""
    from interp.guidance.rows import place_of

    if prepared.guidance is None:
        return 1.0
    blocks, total = len(prepared.model.anatomy.blocks), 1.0
    for branch in prepared.guidance.branches(step):
        place = place_of(branch)
        total += 1.0 if place is None else (blocks - place[1] - place[2]) / blocks
    return total


def sweep(
    model: Model | str | Path,
    prompts: Sequence[str] | str | Path,
    guidance: Sequence[str],
    *,
    out: str | Path,
    **arguments: Any,
) -> Sweep:
    """Prepare a sweep: `sweep(...).run()` draws it. `arguments` are those of `interp.trace`."""
    model = model if isinstance(model, Model) else load(model)
    settings: list[str] = []
    values: list[tuple[str, ...]] = []
    for text in guidance:
        for one, value in expand(text):
            settings.append(one)
            values.append(value)
    if len(set(settings)) != len(settings) or len(settings) < 2:
        raise InputError(f"guidance must be two or more different settings; got {settings}")
    given = {"record": Record(stats=False, gates=False), **arguments}
    prepared = [prepare(model, prompts, guidance=None if text == NONE else text, **given) for text in settings]
    as_json([one.plan.to_json() for one in prepared], "guidance")
    return Sweep(tuple(prepared), located(out), tuple(settings), tuple(values))


def expand(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Every combination of the braces' values, and which they were: "cfg:{1,2}" is cfg:1 and cfg:2."""
    choices = [[value.strip() for value in found.split(",")] for found in BRACES.findall(text)]
    if any(not value for values in choices for value in values):
        raise InputError(f"guidance: braces must hold values between commas, such as cfg:{{1,2,4}}; got {text!r}")
    found = []
    for values in itertools.product(*choices):
        remaining = iter(values)
        found.append((BRACES.sub(lambda match, remaining=remaining: next(remaining), text), tuple(values)))  # type: ignore[misc]
    return found
