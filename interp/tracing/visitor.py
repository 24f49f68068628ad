"""Visit the blocks of each transformer call of a traced run: read, edit, record.

What is read goes to an `Observer`, by actions that are made once per run; an edit is made before by the `Editor`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.base.errors import InputError, TraceError
from interp.base.plan import Row
from interp.base.sites import Site
from interp.interventions.hooks import Driver
from interp.models.anatomy import Modulation, Tap, bind_inputs
from interp.models.call_form import every_row
from interp.models.families.outputs import as_bytes, still
from interp.tracing.editor import Editor
from interp.tracing.envoy import Observer
from interp.tracing.prepare import Prepared
from interp.tracing.recorders import Array, Receive, Recorder, Reducing, RowArrays
from interp.tracing.reductions import FiniteCheck
from interp.tracing.route import Stop, Turns, route_of
from interp.tracing.sampler import SchedulerHook
from interp.tracing.steps import Moving

StepReport = Callable[[int], None]
# relative, where the pipeline rounds its timesteps: Flux twice, as t and as t / 1000, each by half a unit in the last place
TIMESTEP_ROUNDING = {torch.bfloat16: 2.1 * 2**-8, torch.float16: 2.1 * 2**-11}


@dataclasses.dataclass(frozen=True)
class TracedRow:
    """The result of one row: its arrays, or the reason it failed."""

    row: Row
    make: Callable[[], RowArrays] = dict
    """Puts the arrays together: copying that a writer's thread can do."""
    nbytes: int = 0
    failure: str | None = None

    @functools.cached_property
    def arrays(self) -> RowArrays:
        """The recorded arrays and the outputs."""
        return self.make()


class Visitor:
    """Visits the blocks of each transformer call: reads, edits, records."""

    scheduler_hook: SchedulerHook

    def __init__(
        self, prepared: Prepared, rows: Sequence[Row], recorders: Sequence[Recorder], driver: Driver, on_step: StepReport
    ) -> None:
        model, layout = prepared.model, prepared.layout
        self.anatomy, self.transformer = model.anatomy, model.pipe.transformer
        self.rows, self.schedule, driver.lengths = rows, prepared.schedule, layout.lengths
        self.recorders = [*recorders, FiniteCheck(self.anatomy, len(self.schedule.timesteps), recorders)]
        self.driver, self.on_step, self.span = driver, on_step, layout.span(len(layout.prediction))
        self.prediction = layout.prediction if prepared.plan.record.prediction else ()
        self.route = route_of(self.anatomy, self.transformer)
        self.editor = Editor(self.anatomy, self.transformer, self.route, driver)
        self.timesteps, self.predicted = list[Moving](), list[Moving]()
        self.turns = Turns()
        self.calls = self.step = 0
        self.report_error: Exception | None = None

    @functools.cached_property
    def receivers(self) -> dict[Site, list[Receive]]:
        """What receives each site's values."""
        found: dict[Site, list[Receive]] = {}
        for recorder in self.recorders:
            for site in recorder.sites:
                found.setdefault(site, []).append(recorder.receiver(site))
        return found

    @property
    def used(self) -> list[str]:
        """Paths of the modules that are read or may be edited."""
        edited, found = self.editor.edits, []
        for stop in self.route:
            if edited or any(site in self.receivers for site in stop.sites):
                found.append(stop.path)
            found += [path for path, _, sites in stop.reads if edited or any(site in self.receivers for _, site in sites)]
        return found

    def observer(self, envoy: Any) -> Observer:
        """The actions at every location that a recorder needs, in the order in which they are done."""
        actions: dict[str, list[Callable[[Any], None]]] = {f"{envoy.path}.input": [self._begin_call]}

        def add(path: str, side: str, action: Callable[[Any], None]) -> None:
            actions.setdefault(f"{envoy.get(path).path}.{side}", []).append(action)

        for stop in self.route:
            if own := self._wanted(stop.inputs):
                add(stop.path, "input", functools.partial(self._on_inputs, stop, own))
            for path, read, sites in stop.reads:
                seen = [(number, self.receivers[site]) for number, site in sites if site in self.receivers]
                if not seen:
                    continue
                if isinstance(read, Tap):
                    inputs = read.argument is not None or read.side == "input"
                    add(path, "input" if inputs else "output", functools.partial(self._on_tap, stop, read, seen[0][1]))
                else:
                    side = "input" if read.module is None else "output"
                    add(path, side, functools.partial(self._on_modulation, stop, read, seen))
            if own := self._wanted(stop.states):
                items = [(stop.block.hidden[stream], receivers) for stream, receivers in own]
                whole = not stop.block.mixed and not stop.block.followed and all(item is not None for item, _ in items)
                on_states = functools.partial(self._on_items, items) if whole else functools.partial(self._on_states, stop, own)
                add(stop.path, "output", on_states)
        actions.setdefault(f"{envoy.path}.output", []).append(self._end_call)
        return Observer({location: own[0] if len(own) == 1 else _all(own) for location, own in actions.items()})

    def _wanted(self, sites: Mapping[str, Site]) -> list[tuple[str, list[Receive]]]:
        return [(stream, self.receivers[site]) for stream, site in sites.items() if site in self.receivers]

    def _record(self, receivers: Sequence[Receive], value: Tensor) -> None:
        if len(value) != len(self.rows):  # guided: the conditional rows come first
            value = value[: len(self.rows)]
        value = every_row(value.detach(), len(self.rows))
        for receive in receivers:
            receive(self.step, value)

    def _on_inputs(self, stop: Stop, wanted: Sequence[tuple[str, list[Receive]]], given: Any) -> None:
        """The states that enter a block."""
        states = stop.block.states_given(bind_inputs(stop.module, *given), self.driver.lengths)
        for stream, receivers in wanted:
            self._record(receivers, states[stream])

    def _on_tap(self, stop: Stop, tap: Tap, receivers: Sequence[Receive], value: Any) -> None:
        """The input or output of a module in the block, cut to its stream."""
        if not self.turns.is_now(stop.path, tap):
            return
        if tap.argument is not None:
            value = bind_inputs(stop.module.get_submodule(tap.module), *value)[tap.argument]
        elif tap.side == "input":
            value = next(iter((*value[0], *value[1].values())))
        self._record(receivers, tap.take(value, self.driver.lengths))

    def _on_modulation(self, stop: Stop, read: Modulation, seen: Sequence[tuple[int, list[Receive]]], value: Any) -> None:
        """Gates, shifts and scales of one AdaLN projection: the output of a module, or an argument of the block."""
        values = value if read.module is not None else read.compute(stop.module, bind_inputs(stop.module, *value))
        chunks = read.split(values)
        for number, receivers in seen:
            self._record(receivers, chunks[number])

    def _on_states(self, stop: Stop, wanted: Sequence[tuple[str, list[Receive]]], output: Any) -> None:
        """Hidden states in a block's output."""
        for stream, receivers in wanted:
            self._record(receivers, stop.block.state(output, stream, self.driver.lengths))

    def _on_items(self, wanted: Sequence[tuple[int | None, list[Receive]]], output: Any) -> None:
        """Hidden states that are items of a block's output, whole."""
        for item, receivers in wanted:
            self._record(receivers, output[item])

    def _begin_call(self, given: Any) -> None:
        """Check a call of the transformer: one step of the loop."""
        bound = self.editor.unswapped or self.anatomy.rows_first(bind_inputs(self.transformer, *given))
        self.editor.unswapped, self.given = None, bound
        self.step, batch = self.scheduler_hook.steps, len(bound[self.anatomy.row_inputs[0]])
        if self.step != self.calls or batch != len(self.rows):
            raise TraceError(
                f"in step {self.step} the pipeline's transformer call {self.calls} has {batch} rows where call {self.step} "
                f"with {len(self.rows)} rows was expected; the pipeline's own guidance must be off while tracing"
            )
        self.timesteps.append(Moving(bound[self.anatomy.timestep.name].flatten()))
        self.turns.begin_call()
        self.driver.step = self.step
        self.driver.memory.begin_call()

    def _end_call(self, output: Any) -> None:
        """Keep the prediction, and what the recorders have of this step; report it."""
        if self.prediction:
            prediction = self.anatomy.first_prediction(output, self.given)
            self.predicted.append(Moving(prediction.detach()[:, self.span]))
        self.calls += 1
        for recorder in self.recorders:
            recorder.end_step(self.step)
        try:
            self.on_step(self.step)
        except Exception as error:  # an error of the callback is not an error of the pipeline
            self.report_error = error
            raise

    def check_complete(self) -> None:
        """Check that every step was run, at its planned timestep, and that every edit had an effect."""
        expected = len(self.schedule.timesteps)
        if self.calls != expected or self.scheduler_hook.steps != expected:
            raise TraceError(
                f"trace: {self.calls} transformer calls and {self.scheduler_hook.steps} scheduler steps ran; {expected} planned"
            )
        for step, (moving, planned) in enumerate(zip(self.timesteps, self.schedule.timesteps, strict=True)):
            given = moving.numpy().astype(np.float64)
            if not self.anatomy.timestep.agrees(given, planned, TIMESTEP_ROUNDING.get(moving.host.dtype, 1e-6)):
                raise TraceError(f"step {step} was planned at timestep {planned:g} but ran at {given}: the scheduler changed")
        for edit, count in zip(self.driver.arms[0], self.driver.touched[0], strict=True):
            if not count:
                raise InputError(f"intervention {edit!r} touched nothing: this run has no such block, stream and step")

    def _not_finite(self, position: int, images: list[Array]) -> str | None:
        """The first NaN or Inf of a row: in a block, the latents, or the picture."""
        order = {site: place for place, site in enumerate(self.anatomy.sites())}
        reducing = [recorder for recorder in self.recorders if isinstance(recorder, Reducing)]
        found = [place for recorder in reducing for place in recorder.not_finite(position)]
        if found:
            step, site = min(found, key=lambda place: (place[0], order[place[1]]))
            return f"{site}, step {step}"
        for step in self.scheduler_hook.not_finite(position)[:1]:
            return f"the latents, step {step}"
        return None if np.isfinite(images[position]).all() else "the decoded picture (the VAE)"

    def traced(self, position: int, images: list[Array]) -> TracedRow:
        """The result of one row."""
        row = self.rows[position]
        if place := self._not_finite(position, images):
            return TracedRow(row, failure=f"NaN or Inf at {place}, prompt {row.index} ({row.text!r}, seed {row.seed})")
        kept: list[Any] = [*self.recorders, *self.scheduler_hook.latents, *self.predicted]
        size = sum(one.nbytes for one in kept) // len(self.rows) + images[position].nbytes
        return TracedRow(row, functools.partial(self._arrays, position, images[position]), size)

    def _arrays(self, position: int, image: Array) -> RowArrays:
        arrays: RowArrays = {}
        for recorder in self.recorders:
            arrays.update(recorder.row(position))
        latents = np.stack([step.numpy()[position] for step in self.scheduler_hook.latents])
        latents = latents if self.scheduler_hook.keep_all else latents[0]
        arrays["outputs"] = {"image": as_bytes(still(image)), "latents": latents}
        if image.ndim == 4:
            arrays["outputs"]["video"] = as_bytes(image)
        if self.prediction:
            parts = np.split(np.stack([step.numpy()[position] for step in self.predicted]), len(self.prediction), axis=1)
            arrays["outputs"] |= {f"predicted_{name}": part for name, part in zip(self.prediction, parts, strict=True)}
        return arrays


def _all(actions: Sequence[Callable[[Any], None]]) -> Callable[[Any], None]:
    def act(value: Any) -> None:
        for action in actions:
            action(value)

    return act
