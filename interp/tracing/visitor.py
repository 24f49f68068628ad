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
from interp.interventions import Intervention
from interp.interventions.conditioning import SwapConditioning
from interp.interventions.controls import Memory, NormEdit, Remembering
from interp.models.anatomy import Anatomy, Block, Modulation, Tap, bind_inputs
from interp.models.families.pipeline import Schedule, as_bytes, still
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
    inputs: list[tuple[str, Site]]
    """(stream, site)."""
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
    inputs = [(stream, Site(index, stream, "input")) for stream in block.state_inputs]
    states = {stream: Site(index, stream, "hidden") for stream in block.hidden}
    return Stop(here, transformer.get_submodule(block.path), inputs, reads, states, block)


class Visitor:
    """Visits the blocks of each transformer call: reads, edits, records."""

    scheduler_hook: SchedulerHook

    def __init__(
        self,
        anatomy: Anatomy,
        transformer: nn.Module,
        envoy: Any,
        rows: Sequence[Row],
        schedule: Schedule,
        tokens: Mapping[str, int],
        recorders: list[Recorder],
        interventions: list[Intervention],
        on_step: StepReport,
        prediction: tuple[str, ...] = (),
        memory: Memory | None = None,
    ) -> None:
        self.anatomy, self.envoy, self.transformer = anatomy, envoy, transformer
        self.rows, self.schedule, self.tokens = rows, schedule, tokens
        self.recorders, self.interventions, self.on_step = recorders, interventions, on_step
        self.finite = FiniteCheck(len(rows))
        self.route = [_route(index, block, transformer, envoy) for index, block in enumerate(self.anatomy.blocks)]
        self.prediction, self.memory = prediction, memory or Memory()
        self.norm_edits = [edit for edit in interventions if isinstance(edit, NormEdit)]
        self.predicted: list[Tensor] = []
        self.touched = [0] * len(interventions)
        self.calls = 0
        self.report_error: Exception | None = None

    def see_call(self) -> None:
        """One call of the transformer: one step of the loop."""
        given, named = self.envoy.inputs  # read first: this ties the iteration to the call
        bound = bind_inputs(self.transformer, given, named)
        step = self._step_of(bound)
        self.memory.begin_call()
        self._swap(step, bound)
        for stop in self.route:
            self._see_block(stop, step)
        if self.prediction:
            self.predicted.append(self.envoy.output[0].detach().to("cpu", torch.float32, copy=True))
        self.calls += 1
        self.finite.end_step(step)
        for recorder in self.recorders:
            recorder.end_step(step)
        self._report(step)
        if all(self.finite.found):
            raise AllRowsFailedError

    def _swap(self, step: int, bound: dict[str, Any]) -> None:
        """Apply every `SwapConditioning` to the call's arguments."""
        swapped: dict[str, Any] = {}
        for number, edit in enumerate(self.interventions):
            if isinstance(edit, SwapConditioning) and edit.swaps(step):
                swapped |= edit.swapped(self.anatomy.rows_first(bound))
                self.touched[number] += 1
        if swapped:
            self.envoy.inputs = ((), {**bound, **self.anatomy.as_called(swapped)})

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
        if any(self._concerned(site, step) for _, site in stop.inputs):
            self._see_inputs(stop, step)
        for envoy, read, sites in stop.reads:
            if any(self._concerned(site, step) for _, site in sites):
                if isinstance(read, Tap):
                    self._see_tap(stop, envoy, read, sites[0][1], step)
                elif read.module is None:
                    self._see_given(stop, read, sites, step)
                else:
                    self._see_emitted(envoy, read, sites, step)
        self._see_states(stop, step)

    def _see_inputs(self, stop: Stop, step: int) -> None:
        """The input states of a block."""
        given, named = stop.envoy.inputs
        states = stop.block.states_given(bind_inputs(stop.module, given, named), self.tokens)
        for stream, site in stop.inputs:
            self._read_only(site, step, states[stream])

    def _see_tap(self, stop: Stop, envoy: Any, tap: Tap, site: Site, step: int) -> None:
        """The input or output of a module in the block, cut to its stream."""
        if tap.argument is not None:
            value = bind_inputs(stop.module.get_submodule(tap.module), *envoy.inputs)[tap.argument]
        else:
            value = envoy.input if tap.side == "input" else envoy.output
        self._read_only(site, step, tap.take(value, self.tokens))

    def _read_only(self, site: Site, step: int, value: Tensor) -> None:
        for edit in self.interventions:
            if edit.touches(site, step):
                raise InputError(f"intervention: {site} can be read but not edited; edit hidden, alpha, shift or scale")
        self._record(site, step, value)

    def _report(self, step: int) -> None:
        """Report the step; an error of the callback is not an error of the pipeline."""
        try:
            self.on_step(step)
        except Exception as error:
            self.report_error = error
            raise

    def _concerned(self, site: Site, step: int) -> bool:
        wanted = any(recorder.wants(site) for recorder in self.recorders)
        return wanted or any(edit.touches(site, step) for edit in self.interventions)

    def _see_emitted(self, envoy: Any, read: Modulation, sites: list[tuple[int, Site]], step: int) -> None:
        """Gates, shifts and scales in the output of a module in the block."""

        def put(after: Tensor) -> Tensor:
            envoy.output = after
            return after

        self._see_chunks(read, envoy.output, sites, step, put)

    def _see_given(self, stop: Stop, read: Modulation, sites: list[tuple[int, Site]], step: int) -> None:
        """Gates, shifts and scales that the block receives as an argument; the values it uses are recorded."""
        given, named = stop.envoy.inputs
        bound = bind_inputs(stop.module, given, named)
        before = read.compute(stop.module, bound)

        def put(after: Tensor) -> Tensor:
            changed = read.write(stop.module, bound, before, after)
            stop.envoy.inputs = ((), changed)
            return read.compute(stop.module, changed)

        self._see_chunks(read, before, sites, step, put)

    def _see_chunks(
        self,
        read: Modulation,
        values: Tensor,
        sites: list[tuple[int, Site]],
        step: int,
        put: Callable[[Tensor], Tensor],
    ) -> None:
        """Gates, shifts and scales of one AdaLN projection, (batch, chunk * channel); `put` returns the values in use."""
        chunks = read.split(values)
        owners: dict[int, Site] = {}
        edited = False
        for number, site in sites:
            owner = owners.setdefault(number, site)
            if owner is site:
                chunks[number], changed = self._edit(site, step, chunks[number])
                edited = edited or changed
            else:
                self._refuse_shared(site, owner, step)
        if edited:
            chunks = read.split(put(read.join(values, chunks)))
        for number, site in sites:
            self._record(site, step, chunks[number])

    def _refuse_shared(self, site: Site, owner: Site, step: int) -> None:
        """Refuse to edit a shared gate for one of its streams: the user must edit the owner, which changes both."""
        for edit in self.interventions:
            if edit.touches(site, step) and not edit.touches(owner, step):
                raise InputError(f"intervention: {site} is the same gate as {owner}; edit {owner}, which changes both")

    def _see_states(self, stop: Stop, step: int) -> None:
        """Hidden states in a block's output."""
        output = stop.envoy.output
        states = stop.block.states(output, self.tokens)
        edited = False
        for stream, site in stop.states.items():
            value, changed = self._edit(site, step, states[stream])
            states[stream], edited = value, edited or changed
            self.finite.see(site, value[: len(self.rows)])
            self._record(site, step, value)
        if edited:
            stop.envoy.output = stop.block.with_states(output, states)

    def _edit(self, site: Site, step: int, value: Tensor) -> tuple[Tensor, bool]:
        changed = False
        for number, edit in enumerate(self.interventions):
            if edit.touches(site, step):
                if isinstance(edit, Remembering):
                    key = (0, self.norm_edits.index(edit)) if isinstance(edit, NormEdit) else (1, number)
                    value, changed = edit.apply_with(self.memory, key, site, step, value), True
                else:
                    value, changed = edit.apply(site, step, value), True
                self.touched[number] += 1
        return value, changed

    def _record(self, site: Site, step: int, value: Tensor) -> None:
        for recorder in self.recorders:
            if recorder.wants(site):
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

        for edit, count in zip(self.interventions, self.touched, strict=True):
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

    def traced(self, position: int, images: list[Array], scheduler_hook: SchedulerHook) -> TracedRow:
        """The result of one row."""
        row = self.rows[position]
        place = self._not_finite(position, images)
        if place is not None:
            return TracedRow(row, {}, f"NaN or Inf at {place}, prompt {row.index} ({row.text!r}, seed {row.seed})")
        arrays: RowArrays = {}
        for recorder in self.recorders:
            arrays.update(recorder.row(position))
        latents = np.stack([step[position].numpy() for step in scheduler_hook.latents])
        arrays["outputs"] = {
            "image": as_bytes(still(images[position])),
            "latents": latents if scheduler_hook.keep_all else latents[0],
        }
        if images[position].ndim == 4:
            arrays["outputs"]["video"] = as_bytes(images[position])
        if self.prediction:
            parts = torch.stack([step[position] for step in self.predicted]).chunk(len(self.prediction), dim=1)
            named = zip(self.prediction, parts, strict=True)
            arrays["outputs"] |= {f"predicted_{name}": part.numpy() for name, part in named}
        return TracedRow(row, arrays)
