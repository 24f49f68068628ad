"""One traced run of the unmodified pipeline for one group of rows.

1. Call the pipeline inside one nnsight trace, its own guidance off, one CPU generator per image.
2. At each transformer call, keyed by the scheduler's step, apply the interventions where they act, and pass the values, edited
   or not, to the recorders.
3. Afterwards, check that every step of every block was visited, at its planned timestep; otherwise raise TraceError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from interp.base.errors import InputError, InterpError, PipelineError, TraceError
from interp.base.plan import Plan, Row
from interp.interventions.hooks import Driver, attached
from interp.interventions.in_use import running
from interp.models.families.outputs import drawn
from interp.models.load import check_traceable
from interp.models.quiet import quiet
from interp.tracing.envoy import viewed
from interp.tracing.prepare import Prepared
from interp.tracing.recorders import Array, Recorder
from interp.tracing.sampler import hook_scheduler
from interp.tracing.visitor import StepReport, TracedRow, Visitor

if TYPE_CHECKING:
    from interp.tracing.model import Model


def trace_group(
    prepared: Prepared, rows: Sequence[Row], recorders: Sequence[Recorder], on_step: StepReport = lambda step: None
) -> list[TracedRow]:
    """Trace the rows of one batch. A row with a state that is not finite is returned with the reason.

    In a guided run the recorders receive the conditional rows only, and edits act on the rows of every branch.
    """
    model, guide = prepared.model, prepared.guide()
    transformer = model.pipe.transformer
    if guide is not None and "_hf_hook" in vars(transformer):
        raise InputError(
            "guidance: a guided trace does not support offloading; trace without --offload, or draw with interp.generate"
        )
    if prepared.apart:
        raise InputError(
            f"guidance: the texts of {model.name} have other lengths, and no call holds two, so a trace cannot see the "
            "guidance's calls; trace without it, or draw with interp.generate"
        )
    driver = Driver(model.anatomy, [prepared.interventions])
    with running(model):
        check_traceable(transformer)
        model.release()
        visitor = Visitor(prepared, rows, recorders, driver, on_step)
        hooked = hook_scheduler(model.pipe, keep_all=prepared.plan.record.latents == "all")
        with viewed(transformer, visitor.used) as envoy, hooked as visitor.scheduler_hook:
            guiding = guide.guiding(transformer) if guide is not None else contextlib.nullcontext()
            with attached([*driver.attach_norms(transformer), *driver.attach_counts(transformer)]), guiding:
                images = _run(prepared, rows, visitor, envoy)
        visitor.check_complete()
    return [visitor.traced(position, images) for position in range(len(rows))]


def pipeline_arguments(model: Model, plan: Plan, rows: Sequence[Row]) -> dict[str, Any]:
    """The pipeline's arguments for these rows; an untraced call with them gives the same pictures."""
    return {
        "num_inference_steps": plan.steps,
        "generator": [torch.Generator("cpu").manual_seed(row.seed) for row in rows],
        "output_type": "np",
        **model.loaded.spec.arguments(model.pipe, [row.text for row in rows], plan.height, plan.width, plan.settings),
        **model.loaded.spec.levels.arguments(plan.steps),
    }


def _run(prepared: Prepared, rows: Sequence[Row], visitor: Visitor, envoy: Any) -> list[Array]:
    """Run the pipeline in a trace; return its pictures, float in 0..1."""
    model, outputs = prepared.model, list[Any]()

    def sample(**arguments: Any) -> None:
        outputs.append(model.pipe(**arguments))

    steps = len(visitor.schedule.timesteps) if visitor.editor.edits else 0
    observer = visitor.observer(envoy)
    try:
        with quiet(), envoy.trace(fn=sample, **pipeline_arguments(model, prepared.plan, rows)) as tracer:
            observer.subscribe()
            for step in tracer.iter[:steps] if steps else ():
                visitor.editor.edit_call(step, envoy)
    except InterpError:
        raise
    except Exception as error:
        if error is visitor.report_error:
            raise
        texts = ", ".join(repr(row.text[:40]) for row in rows)
        raise PipelineError(f"the pipeline failed on {texts}: {type(error).__name__}: {error}") from error
    if not outputs:
        raise TraceError("the pipeline returned no picture inside the trace; nothing was recorded")
    return drawn(outputs[0])
