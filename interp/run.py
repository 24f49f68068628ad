"""Runs: a plan's rows traced into a store, and the store opened as xarray.

prompts -> `Plan` -> rows -> `trace_group` -> arrays of one row -> writer -> store -> `Run`. This file joins tracing and store,
which do not know each other.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from interp.errors import InputError, InterpWarning, PipelineError, PlanError, StoreError, TraceError
from interp.guidance.presets import check_run
from interp.interventions import Intervention
from interp.models.anatomy import Anatomy
from interp.models.families.pipeline import Layout
from interp.plan import Plan, Record, Row, SiteRecorder, at_least, check_same, groups
from interp.provenance import CHANGEABLE, provenance
from interp.sites import STREAMS, Site, resolve_indices
from interp.store.create import add_attributes, create, remove_leftovers, writing_lock, zarr_quiet
from interp.store.failures import failures, forget_failure, note_failure
from interp.store.opened import Run, open_run
from interp.store.reader import Shelf
from interp.store.schema import HiddenAxes, RecordedAxes, Schema
from interp.store.summary import write_summary
from interp.store.writer import Writer
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare
from interp.tracing.recorders import (
    Array,
    BranchRecorder,
    GatesRecorder,
    HiddenRecorder,
    HiddenSink,
    OwnRecorder,
    Recorder,
    StatisticsRecorder,
    gate_present,
    stream_present,
)
from interp.tracing.trace import TracedRow, trace_group


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a trace is; handed to `on_progress` after every step and every group of rows."""

    rows_done: int
    rows_total: int
    step: int
    steps: int
    seconds: float
    """Since this call began tracing."""
    traced: int
    """Rows traced by this call."""


OnProgress = Callable[[Progress], None]
HOPELESS = 5  # rows that fail before any succeeds


def trace(
    model: Model | str | Path,
    prompts: Sequence[str] | str | Path,
    *,
    out: str | Path,
    steps: int | None = None,
    seed: int = 0,
    repeats: int = 1,
    height: int | None = None,
    width: int | None = None,
    guidance: Any = None,
    negative_prompt: str = "",
    interventions: Sequence[Intervention] = (),
    record: Record | None = None,
    settings: dict[str, Any] | None = None,
    batch_size: int = 1,
    resume: bool = True,
    retry_failed: bool = False,
    on_progress: OnProgress = lambda progress: None,
) -> Run:
    """Trace prompts into a store and open it.

    `prompts` is a list of texts or the path of a prompts file. Unset arguments take the catalog's or the pipeline's
    defaults; height and width are in pixels. `guidance` is a sum of `interp.guidance` methods, or text such as "cfg:4+dg:1";
    what is recorded are the conditional rows. A store that already holds part of the same plan is continued; one that holds
    another plan is refused.

    A row on which the pipeline raises, or whose states are not finite, is kept in the store as failed, with its reason; the
    rest goes on, and a `TraceError` at the end says so. The same call leaves such rows out; `retry_failed` tries them again.
    """
    prepared = prepare(
        model,
        prompts,
        steps=steps,
        seed=seed,
        repeats=repeats,
        height=height,
        width=width,
        guidance=guidance,
        negative_prompt=negative_prompt,
        interventions=interventions,
        record=record,
        settings=settings,
    )
    return execute(
        prepared, Path(out), batch_size=batch_size, resume=resume, retry_failed=retry_failed, on_progress=on_progress
    )


def execute(
    prepared: Prepared,
    path: Path,
    *,
    batch_size: int = 1,
    resume: bool = True,
    retry_failed: bool = False,
    shard: tuple[int, int] | None = None,
    on_progress: OnProgress = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Run:
    """Trace the rows of a prepared run that its store does not hold yet. `stopped` is asked after every batch; if it
    says so, the rows in flight are written and a KeyboardInterrupt follows. `shard` (i, n) takes batches i, i + n, ... alone:
    n processes, on as many machines as share the folder, write one store.
    """
    plan, rows, schema = prepared.plan, prepared.plan.rows(), make_schema(prepared)
    batches = groups(rows, at_least("batch_size", batch_size, 1))
    if not path.name or path.name in (".", ".."):
        raise InputError(f"out must name the store's folder, such as cache/run.zarr; got {str(path)!r}")
    started, traced, fresh = time.monotonic(), 0, 0
    if shard is not None:
        batches = batches[shard[0] :: shard[1]]
    with writing_lock(path, shard) as let_others_in, zarr_quiet():
        done = _open_or_create(prepared, schema, path, batch_size, resume)
        let_others_in()
        failed = failures(path)
        skipped = set() if retry_failed else set(failed)
        count = sum(done)

        def report(step: int) -> None:
            on_progress(Progress(count, len(rows), step, plan.steps, time.monotonic() - started, traced))

        with Writer(path) as writer:
            for batch in batches:
                pending = [row for row in batch if not done[row.index] and row.index not in skipped]
                if not pending:
                    continue
                for result in _attempt(prepared, schema, batch, pending, writer, report):
                    row = result.row.index
                    if result.failure is not None:
                        failed[row] = result.failure
                        fresh += 1
                        note_failure(path, row, result.failure)
                        _give_up_early(traced, fresh, result.failure)
                        continue
                    writer.row(row, result.arrays)
                    count, traced = count + 1, traced + 1
                    if failed.pop(row, None) is not None:
                        forget_failure(path, row)
                report(plan.steps)
                if stopped():
                    break
        if stopped():
            raise KeyboardInterrupt
        if shard is None:
            write_summary(path)
    if shard is not None:
        _summarise_if_last(path)
        failed = {row.index: failed[row.index] for batch in batches for row in batch if row.index in failed}
    if failed:
        first = min(failed)
        raise TraceError(
            f"{len(failed)} of {len(rows)} rows failed, the others are in {path}. First, row {first}: {failed[first]} "
            "(--retry-failed tries them again; if float16 overflowed, try another --dtype)"
        )
    run = open_run(path)
    if prepared.guidance is not None and plan.record.stats:
        check_run(prepared.guidance.methods, run)
    return run


def _summarise_if_last(path: Path) -> None:
    """Of several shards, the one that finds every row done makes the summary; the lock is held while it looks."""
    try:
        with writing_lock(path), zarr_quiet():
            if Shelf(path).done.all():
                write_summary(path)
    except StoreError:  # others are still writing: one of them is the last
        return


def _give_up_early(traced: int, failed: int, reason: str) -> None:
    """A run of which nothing succeeds is stopped: it is not about the prompts."""
    if not traced and failed >= HOPELESS:
        raise TraceError(f"the first {failed} rows all failed, so the run was stopped. Last: {reason}")


def _attempt(
    prepared: Prepared,
    schema: Schema,
    batch: Sequence[Row],
    pending: Sequence[Row],
    writer: Writer,
    report: Callable[[int], None],
) -> list[TracedRow]:
    """Trace a batch; if the pipeline raises, its rows are traced one by one, and those that raise again have failed."""
    try:
        return _trace_batch(prepared, schema, batch, pending, writer, report)
    except PipelineError as error:
        if len(batch) == 1:
            return [TracedRow(batch[0], {}, failure=str(error))]
        warnings.warn(
            f"{error}; the rows of this batch are traced one by one, so they agree with a batch to 1e-5, not bit for bit",
            InterpWarning,
            stacklevel=2,
        )
        return [found for row in pending for found in _attempt(prepared, schema, [row], [row], writer, report)]


def _trace_batch(
    prepared: Prepared,
    schema: Schema,
    batch: Sequence[Row],
    pending: Sequence[Row],
    writer: Writer,
    report: Callable[[int], None],
) -> list[TracedRow]:
    """Trace a whole batch, in the company its rows always have, and give back the rows that were pending."""
    waiting = {row.index for row in pending}

    def hidden(position: int, step: int, block: int, stream: str, state: Any) -> None:
        row = batch[position].index
        if row in waiting:
            axes = schema.hidden[stream]
            writer.hidden(row, axes.steps.index(step), axes.blocks.index(block), stream, state)

    results = trace_group(
        prepared.model,
        prepared.plan,
        batch,
        prepared.schedule,
        prepared.layout,
        make_recorders(prepared, schema, len(batch), hidden),
        interventions=prepared.interventions,
        guide=prepared.guide(),
        on_step=report,
    )
    return [result for result in results if result.row.index in waiting]


def make_recorders(prepared: Prepared, schema: Schema, batch: int, hidden: HiddenSink) -> list[Recorder]:
    """The recorders a plan asks for."""
    record, anatomy = prepared.plan.record, prepared.model.anatomy
    steps = len(prepared.schedule.timesteps)
    recorders: list[Recorder] = []
    if record.stats:
        recorders.append(StatisticsRecorder(anatomy, steps, batch))
    if record.gates:
        recorders.append(GatesRecorder(anatomy, steps, batch, modulation=record.modulation))
    if record.branches:
        recorders.append(BranchRecorder(anatomy, steps, batch, _position(prepared)))
    for own in record.recorders:
        sites = [Site.parse(name) for name in schema.recorded[own.name].sites]
        recorders.append(OwnRecorder(own, sites, steps, batch))
    if record.select is not None:
        tokens = {stream: prepared.layout.tokens(stream) for stream in STREAMS}
        recorders.append(HiddenRecorder(record.select, anatomy, steps, tokens, hidden))
    return recorders


def _position(prepared: Prepared) -> Array | None:
    """The position embedding of the image tokens, (token, channel), where the model adds one."""
    model = prepared.model
    if model.anatomy.position is None:
        return None
    table = model.anatomy.position(model.pipe.transformer, prepared.layout.image_grid)
    return table.detach().float().cpu().numpy()


def make_schema(prepared: Prepared) -> Schema:
    """The axes of a run's store."""
    model, plan, layout, times = prepared.model, prepared.plan, prepared.layout, prepared.schedule
    anatomy, record, rows = model.anatomy, plan.record, plan.rows()
    kinds = ("alpha", "shift", "scale") if record.modulation else ("alpha",)
    return Schema(
        prompt_text=tuple(row.text for row in rows),
        seed=tuple(row.seed for row in rows),
        timestep=times.timesteps,
        sigma=times.sigmas,
        block_path=tuple(block.path for block in anatomy.blocks),
        block_kind=tuple(block.kind for block in anatomy.blocks),
        streams=anatomy.streams,
        gates=anatomy.gates,
        channels=anatomy.channels,
        stream_present=stream_present(anatomy),
        gate_present={kind: gate_present(anatomy, kind) for kind in kinds},
        image=(plan.height, plan.width),
        latents=layout.latents,
        latents_every_step=record.latents == "all",
        prediction=layout.prediction if record.prediction else (),
        statistics=record.stats,
        gate_kinds=kinds if record.gates else (),
        branches=record.branches,
        hidden=_hidden_axes(model, plan, layout, len(times.timesteps)),
        recorded={own.name: _own_axes(own, anatomy) for own in record.recorders},
    )


def _own_axes(own: SiteRecorder, anatomy: Anatomy) -> RecordedAxes:
    sites = tuple(str(site) for site in anatomy.sites() if own.matches(site))
    if not sites:
        example = next(anatomy.sites())
        raise InputError(f"SiteRecorder {own.name}: no site is named like {own.sites!r}; sites are named like {example}")
    return RecordedAxes(sites, own.axes)


def _hidden_axes(model: Model, plan: Plan, layout: Layout, steps: int) -> dict[str, HiddenAxes]:
    select, anatomy = plan.record.select, model.anatomy
    if select is None:
        return {}
    missing = [stream for stream in select.streams if stream not in anatomy.streams]
    if missing and len(missing) == len(select.streams):
        raise InputError(f"record.hidden selects the {missing[0]} stream, which {model.name} has not")
    blocks = resolve_indices(select.blocks, len(anatomy.blocks), "blocks")
    found = {}
    for stream in (stream for stream in select.streams if stream in anatomy.streams):
        present = tuple(block for block in blocks if stream in anatomy.blocks[block].hidden)
        if not present:
            continue
        found[stream] = HiddenAxes(
            steps=resolve_indices(select.steps, steps, "steps"),
            blocks=present,
            tokens=resolve_indices(select.tokens, layout.tokens(stream), f"tokens of the {stream} stream"),
            channels=resolve_indices(select.channels, anatomy.channels, "channels"),
            grid=layout.image_grid if stream == "image" else None,
        )
    if not found:
        streams = " and ".join(select.streams)
        raise InputError(f"record.hidden selects nothing: the {streams} stream does not leave block {blocks[-1]}; add blocks")
    return found


def _open_or_create(prepared: Prepared, schema: Schema, path: Path, batch_size: int, resume: bool) -> list[bool]:
    """Which rows the store already holds; it is made if there is none."""
    plan = prepared.plan.to_json()
    now = provenance(prepared.model, batch_size)
    remove_leftovers(path)
    if not path.exists():
        create(path, schema, {"plan": plan, "provenance": now})
        return [False] * len(schema.prompt_text)
    shelf = Shelf(path)
    if not resume:
        raise PlanError(f"out: {path} exists and resume is off; give another --out, or delete it (it is never overwritten)")
    if "plan" not in shelf.attributes:
        raise StoreError(f"store {path} names no plan, so it cannot be continued; give another --out")
    check_same(plan, shelf.attributes["plan"], str(path))
    done = [bool(flag) for flag in shelf.done]
    if not all(done):
        _note_changes(path, shelf.attributes.get("provenance", {}), now)
    return done


def _note_changes(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Warn of what is not as it was when the store was begun, and keep a note of it in the store."""
    changed = {field: now[field] for field in CHANGEABLE if before.get(field) != now[field]}
    for field, value in changed.items():
        warnings.warn(
            f"{field} was {before.get(field)} when {path} was begun and is {value} now: rows agree to 1e-5, not bit for bit",
            InterpWarning,
            stacklevel=2,
        )
    if changed:
        add_attributes(path, f"continued {now['created']}", changed)
