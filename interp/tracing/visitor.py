"""Visit the blocks of each transformer call of a traced run: read, edit, record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interp.base.errors import InputError, TraceError
from interp.base.plan import Row
from interp.base.sites import Site
from interp.interventions.hooks import Driver
from interp.models.anatomy import Block, Modulation, Tap, bind_inputs
from interp.models.families.outputs import as_bytes, still
from interp.tracing.prepare import Prepared
from interp.tracing.recorders import Array, FiniteCheck, Recorder, RowArrays
from interp.tracing.sampler import SchedulerHook

StepReport = Callable[[int], None]
# relative, where the pipeline rounds its timesteps: Flux twice, as t and as t / 1000, each by half a unit in the last place
TIMESTEP_ROUNDING = {torch.bfloat16: 2.1 * 2**-8, torch.float16: 2.1 * 2**-11}


@dataclasses.dataclass(frozen=True)
class TracedRow:
    """The result of one row: its arrays, or the reason it failed."""

    row: Row
    arrays: RowArrays
    failure: str | None = None


class AllRowsFailedError(Exception):
    """Every row of the batch has a state that is not finite."""


@dataclasses.dataclass(frozen=True)
class Stop:
    """The sites to visit in one block, in execution order."""

    envoy: Any
    module: nn.Module
    inputs: dict[str, Site]
    """By stream."""
    reads: list[tuple[Any, Modulation | Tap, list[tuple[int, Site]]]]
    """(envoy, modulation or tap, [(chunk number, site)])."""
    states: dict[str, Site]
    """By stream."""
    block: Block


def _route(index: int, block: Block, transformer: nn.Module, envoy: Any) -> Stop:
    here = envoy.get(block.path)
    reads = []
    for read in block.reads:
        if isinstance(read, Tap):
            sites = [(0, Site(index, read.stream, read.kind, read.gate))]
        else:
            sites = [(number, site) for owner, number, site in block.chunk_sites(index) if owner is read]
        reads.append((here.get(read.module) if read.module else here, read, sites))
    inputs = {stream: Site(index, stream, "input") for stream in block.state_inputs}
    states = {stream: Site(index, stream, "hidden") for stream in block.hidden}
    return Stop(here, transformer.get_submodule(block.path), inputs, reads, states, block)


class Visitor:
    """Visits the blocks of each transformer call: reads, edits, records."""

    scheduler_hook: SchedulerHook

    def __init__(
        self,
        prepared: Prepared,
        rows: Sequence[Row],
        recorders: Sequence[Recorder],
        driver: Driver,
        envoy: Any,
        on_step: StepReport,
    ) -> None:
        model, layout = prepared.model, prepared.layout
        self.anatomy, self.envoy, self.transformer = model.anatomy, envoy, model.pipe.transformer
        self.rows, self.schedule, self.tokens = rows, prepared.schedule, layout.lengths
        self.finite = FiniteCheck(self.anatomy, len(rows))
        self.recorders, self.driver, self.on_step = [self.finite, *recorders], driver, on_step
        self.prediction = layout.prediction if prepared.plan.record.prediction else ()
        self.route = [_route(index, block, self.transformer, self.envoy) for index, block in enumerate(self.anatomy.blocks)]
        self.predicted: list[Tensor] = []
        self.calls = 0
        self.report_error: Exception | None = None

    def see_call(self) -> None:
        """One call of the transformer: one step of the loop."""
        bound = bind_inputs(self.transformer, *self.envoy.inputs)  # read first: this ties the iteration to the call
        step = self.driver.step = self._step_of(bound)
        self.driver.memory.begin_call()
        bound, swapped = self.driver.swap(self.anatomy.rows_first(bound))
        if swapped:
            self.envoy.inputs = ((), self.anatomy.as_called(bound))
        for stop in self.route:
            self._see_block(stop, step)
        if self.prediction:
            self.predicted.append(self.envoy.output[0].detach().to("cpu", torch.float32, copy=True))
        self.calls += 1
        for recorder in self.recorders:
            recorder.end_step(step)
        self._report(step)
        if all(self.finite.found):
            raise AllRowsFailedError

    def _step_of(self, inputs: Mapping[str, Any]) -> int:
        """The current step, checked against the rows and the timestep that the transformer receives."""
        step, batch = self.scheduler_hook.steps, len(inputs[self.anatomy.row_inputs[0]])
        if step != self.calls or batch != len(self.rows):
            raise TraceError(
                f"in step {step} the pipeline's transformer call {self.calls} has {batch} rows where call {step} with "
                f"{len(self.rows)} rows was expected; the pipeline's own guidance must be off while tracing"
            )
        expected = self.schedule.timesteps[step]
        timesteps = inputs[self.anatomy.timestep].flatten()
        given = timesteps.double().cpu().numpy() * self.anatomy.timestep_scale
        if not np.allclose(given, expected, rtol=TIMESTEP_ROUNDING.get(timesteps.dtype, 1e-6), atol=1e-6):
            raise TraceError(f"step {step} was planned at timestep {expected:g} but ran at {given}: the scheduler changed")
        return step

    def _see_block(self, stop: Stop, step: int) -> None:
        if any(self._concerned(site) for site in stop.inputs.values()):
            states = stop.block.states_given(bind_inputs(stop.module, *stop.envoy.inputs), self.tokens)
            for stream, site in stop.inputs.items():
                self._read_only(site, step, states[stream])
        for envoy, read, sites in stop.reads:
            if any(self._concerned(site) for _, site in sites):
                if isinstance(read, Tap):
                    self._see_tap(stop, envoy, read, sites[0][1], step)
                else:
                    self._see_modulation(stop, envoy, read, sites, step)
        self._see_states(stop, step)

    def _see_tap(self, stop: Stop, envoy: Any, tap: Tap, site: Site, step: int) -> None:
        """The input or output of a module in the block, cut to its stream."""
        if tap.argument is not None:
            value = bind_inputs(stop.module.get_submodule(tap.module), *envoy.inputs)[tap.argument]
        else:
            value = envoy.input if tap.side == "input" else envoy.output
        self._read_only(site, step, tap.take(value, self.tokens))

    def _read_only(self, site: Site, step: int, value: Tensor) -> None:
        if self.driver.concerns(site):
            raise InputError(f"intervention: {site} can be read but not edited; edit hidden, alpha, shift or scale")
        self._record(site, step, value)

    def _report(self, step: int) -> None:
        """Report the step; an error of the callback is not an error of the pipeline."""
        try:
            self.on_step(step)
        except Exception as error:
            self.report_error = error
            raise

    def _concerned(self, site: Site) -> bool:
        return any(site in recorder.sites for recorder in self.recorders) or self.driver.concerns(site)

    def _see_modulation(self, stop: Stop, envoy: Any, read: Modulation, sites: list[tuple[int, Site]], step: int) -> None:
        """Gates, shifts and scales of one AdaLN projection: the output of a module, or an argument of the block."""
        owners = {number: site for number, site in sites if site.stream not in read.shared_with}
        self._refuse_shared(sites, owners, step)
        bound = bind_inputs(stop.module, *envoy.inputs) if read.module is None else None
        values = envoy.output if bound is None else read.compute(stop.module, bound)
        edited = self.driver.edit_chunks(read, owners, values)
        if edited is not None and bound is None:
            envoy.output = values = edited
        elif edited is not None and bound is not None:
            bound = read.write(stop.module, bound, values, edited)
            envoy.inputs = ((), bound)
            values = read.compute(stop.module, bound)
        chunks = read.split(values)
        for number, site in sites:
            self._record(site, step, chunks[number])

    def _refuse_shared(self, sites: list[tuple[int, Site]], owners: Mapping[int, Site], step: int) -> None:
        """Refuse to edit a shared gate for one of its streams: the user must edit the owner, which changes both."""
        for number, site in sites:
            owner = owners[number]
            if any(edit.touches(site, step) and not edit.touches(owner, step) for edit in self.driver.arms[0]):
                raise InputError(f"intervention: {site} is the same gate as {owner}; edit {owner}, which changes both")

    def _see_states(self, stop: Stop, step: int) -> None:
        """Hidden states in a block's output."""
        output = stop.envoy.output
        before = stop.block.states(output, self.tokens)
        after = {stream: self.driver.edit(site, before[stream]) for stream, site in stop.states.items()}
        for stream, site in stop.states.items():
            self._record(site, step, after[stream])
        if any(after[stream] is not before[stream] for stream in after):
            stop.envoy.output = stop.block.with_states(output, after)

    def _record(self, site: Site, step: int, value: Tensor) -> None:
        for recorder in self.recorders:
            if site in recorder.sites:
                recorder.see(site, step, value.detach()[: len(self.rows)])

    def check_complete(self) -> None:
        """Check that every block of every step was visited, unless every row failed."""
        expected = len(self.schedule.timesteps)
        if all(self.finite.found):
            return
        if self.calls != expected or self.scheduler_hook.steps != expected:
            raise TraceError(
                f"trace: {self.calls} transformer calls and {self.scheduler_hook.steps} scheduler steps ran; {expected} planned"
            )
        for edit, count in zip(self.driver.arms[0], self.driver.touched[0], strict=True):
            if not count:
                raise InputError(f"intervention {edit!r} touched nothing: this run has no such block, stream and step")

    def _not_finite(self, position: int, images: list[Array]) -> str | None:
        """The first NaN or Inf of a row: in a block, the latents, or the picture."""
        found = self.finite.found[position]
        if found is not None:
            return f"{found[1]}, step {found[0]}"
        for step in self.scheduler_hook.not_finite.get(position, [])[:1]:
            return f"the latents, step {step}"
        return None if np.isfinite(images[position]).all() else "the decoded picture (the VAE)"

    def traced(self, position: int, images: list[Array]) -> TracedRow:
        """The result of one row."""
        row = self.rows[position]
        if place := self._not_finite(position, images):
            return TracedRow(row, {}, f"NaN or Inf at {place}, prompt {row.index} ({row.text!r}, seed {row.seed})")
        arrays: RowArrays = {}
        for recorder in self.recorders:
            arrays.update(recorder.row(position))
        latents = np.stack([step[position].numpy() for step in self.scheduler_hook.latents])
        latents = latents if self.scheduler_hook.keep_all else latents[0]
        arrays["outputs"] = {"image": as_bytes(still(images[position])), "latents": latents}
        if images[position].ndim == 4:
            arrays["outputs"]["video"] = as_bytes(images[position])
        if self.prediction:
            parts = torch.stack([step[position] for step in self.predicted]).chunk(len(self.prediction), dim=1)
            named = zip(self.prediction, parts, strict=True)
            arrays["outputs"] |= {f"predicted_{name}": part.numpy() for name, part in named}
        return TracedRow(row, arrays)
