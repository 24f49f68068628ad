"""Runs: trace the samples of a plan into a store, and open the store as xarray.

prompts -> `Plan` -> rows -> `trace_group` -> arrays of one row -> writer -> store -> `Run`. This file connects tracing and
store, which do not import each other.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import time
import warnings
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from interp.base.errors import InputError, InterpWarning, PlanError, StoreError, TraceError
from interp.base.executor import Execution, Progress
from interp.base.options import Sampling, split, takes
from interp.base.plan import Record
from interp.base.same_plan import check_same, check_verifiable, unverifiable
from interp.base.site_recorder import at_least
from interp.guidance.presets import check_run
from interp.runs.batches import Tracing
from interp.runs.recorded import make_schema
from interp.store.create import add_attributes, create, remove_leftovers, writing_lock, zarr_quiet
from interp.store.failures import failures, forget_failure, note_failure
from interp.store.locations import absolute, exists, located
from interp.store.reader import StoreReader
from interp.store.schema import Schema
from interp.store.summary import Totals, write_summary
from interp.store.traced_run import Run, open_run
from interp.tracing.model import Model, as_model
from interp.tracing.prepare import Prepared, prepare

ALONE = Execution()
MAX_INITIAL_FAILURES = 5  # rows that fail before any succeeds
PACKAGES = ("torch", "diffusers", "transformers", "nnsight", "zarr", "xarray", "numpy")
CHANGEABLE = ("batch_size", "device", "threads", "offload", "versions")  # a change in these warns and does not raise


@takes(Sampling, Execution)
def trace(
    model: Model | str | Path,
    prompts: Sequence[str] | str | Path,
    *,
    out: str | Path,
    record: Record | None = None,
    resume: bool = True,
    retry_failed: bool = False,
    **given: Any,
) -> Run:
    """Trace prompts into a store and open it.

    `prompts` is a list of texts or the path of a prompts file. Unset arguments take the catalog's or the pipeline's
    defaults; height and width are in pixels. `guidance` is a sum of `interp.guidance` methods, or text such as "cfg:4+dg:1";
    only the conditional rows are recorded. A store that holds part of the same plan is resumed; one that holds another plan
    raises PlanError.

    If the pipeline raises on a row, or its states are not finite, the store keeps the row as failed with its reason. The other
    rows are traced, and a `TraceError` at the end reports the failed ones. The same call skips failed rows; `retry_failed`
    tries them again. `through=interp.Workers(4)` traces with four processes.
    """
    sampling, how = split(given, Sampling, Execution, of="trace")
    loaded = as_model(model)
    with loaded.identified_once():
        prepared = prepare(loaded, prompts, sampling, record=record or Record())
        return execute(prepared, located(out), how, resume=resume, retry_failed=retry_failed)


def execute(
    prepared: Prepared,
    path: Path,
    how: Execution = ALONE,
    *,
    resume: bool = True,
    retry_failed: bool = False,
    shard: tuple[int, int] | None = None,
    only: Collection[int] | None = None,
) -> Run:
    """Trace the rows of a prepared run that its store does not hold yet. `shard` (i, n) traces units i, i + n, ... only: n
    processes, on machines that share the folder, write one store. `only` lists rows; the default is all rows.
    """
    prepared.check_unchanged()
    rows, steps, schema = prepared.plan.rows(), len(prepared.schedule.timesteps), make_schema(prepared)
    if not path.name or path.name in (".", ".."):
        raise InputError(f"out must name the store's folder, such as cache/run.zarr; got {str(path)!r}")
    started, traced, fresh = time.monotonic(), 0, 0
    work = Tracing(prepared, absolute(path), prepared.together(at_least("batch_size", how.batch_size, 1)))
    units = work.units() if shard is None else work.units()[shard[0] :: shard[1]]
    with writing_lock(path, shard) as let_others_in, zarr_quiet():
        done = open_or_create(prepared, schema, path, how, resume)
        let_others_in()
        failed = _still_failed(path, done)
        left_out = set() if only is None else {row.index for row in rows} - set(only)
        work.skipped = frozenset(left_out) if retry_failed else frozenset(left_out | set(failed))
        mine = [row.index for unit in units for row in unit if row.index not in left_out]
        count = sum(done[row] for row in mine)

        def report(step: int) -> None:
            seconds = time.monotonic() - started
            how.on_progress(Progress(count, len(mine), traced, seconds, step, steps, how.through.rates()))

        work.on_step = report
        work.totals = None if any(done) or shard is not None else Totals.of(schema)
        pending = [unit for unit in units if any(not done[row.index] and row.index not in work.skipped for row in unit)]
        with contextlib.closing(how.through(work, pending, how.stopped)) as outcomes:
            for _, outcome in outcomes:
                for row, failure in outcome:
                    if failure is not None:
                        failed[row] = failure
                        fresh += 1
                        note_failure(path, row, failure)
                        if fresh >= MAX_INITIAL_FAILURES and not traced and not any(done):  # the prompts are not the cause
                            raise TraceError(f"the first {fresh} rows all failed, so the run was stopped. Last: {failure}")
                        continue
                    count, traced = count + (not done[row]), traced + 1
                    done[row] = True
                    if failed.pop(row, None) is not None:
                        forget_failure(path, row)
                report(steps)
        if how.stopped() and not all(done[row] for row in mine):
            raise KeyboardInterrupt
        if shard is None:
            write_summary(path, work.totals)
    if traced:
        prepared.check_kept(str(path))
    if shard is not None:
        _summarise_if_last(path)
    return conclude(prepared, path, {row: failed[row] for row in mine if row in failed})


def _still_failed(path: Path, done: Sequence[bool]) -> dict[int, str]:
    """Failed rows that are not done; removes stale notes of rows that are done."""
    found = failures(path)
    for row in [row for row in found if done[row]]:
        forget_failure(path, row)
        del found[row]
    return found


def conclude(prepared: Prepared, path: Path, failed: dict[int, str]) -> Run:
    """Open the traced store; a TraceError reports failed rows."""
    if failed:
        first, total = min(failed), len(prepared.plan.rows())
        overflow = "; if float16 overflowed, try another --dtype" if "NaN" in failed[first] else ""
        raise TraceError(
            f"{len(failed)} of {total} rows failed; the other rows are in {path}. First, row {first}: {failed[first]} "
            f"(--retry-failed tries them again{overflow})"
        )
    run = open_run(path)
    if prepared.guidance is not None and prepared.plan.record.stats and not prepared.plan.record.bundle:
        check_run(prepared.guidance.methods, run)
    return run


def _summarise_if_last(path: Path) -> None:
    """Write the summary under the lock if every row is done, which only the last of several shards finds."""
    try:
        with writing_lock(path), zarr_quiet():
            if StoreReader(path).done.all():
                write_summary(path)
    except StoreError:  # other shards are still writing
        return


def open_or_create(prepared: Prepared, schema: Schema, path: Path, how: Execution, resume: bool) -> list[bool]:
    """Rows that the store already holds, as booleans. Creates a missing store."""
    plan = prepared.plan.to_json()
    now = provenance(prepared.model, how.batch_size) | how.through.provenance()
    remove_leftovers(path)
    if not exists(path):
        for name in unverifiable(plan):
            warnings.warn(f"{name} cannot be described; {path} records this and cannot be resumed", InterpWarning, stacklevel=4)
        create(path, schema, {"plan": plan, "provenance": now})
        return [False] * len(schema.prompt_text)
    reader = StoreReader(path)
    if not resume:
        raise PlanError(f"out: {path} exists and resume is off; give another --out, or delete it (it is never overwritten)")
    if "plan" not in reader.attributes:
        raise StoreError(f"store {path} has no plan and cannot be resumed; give another --out")
    check_same(plan, reader.attributes["plan"], str(path))
    done = [bool(flag) for flag in reader.done]
    if not all(done):
        check_verifiable(plan, str(path))
        _note_changes(path, reader.attributes.get("provenance", {}), now)
    return done


def provenance(model: Model, batch_size: int) -> dict[str, Any]:
    """Provenance of a run as JSON values: model class and revision, dtype, device, batch size, threads, versions."""
    loaded = model.loaded
    return {
        "model_class": loaded.anatomy.model_class,
        "pipeline_class": loaded.spec.pipeline_class,
        "gates_set_by": list(loaded.anatomy.conditioning.players) if loaded.anatomy.conditioning else None,
        "revision": loaded.revision,
        "device": loaded.device,
        "offload": loaded.offload,
        "quantize": (model.origin or {}).get("quantize"),
        "quantization": loaded.quantization,
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Versions of this package and of the packages its numbers depend on."""
    return {name: importlib.metadata.version(name) for name in ("interp", *PACKAGES)}


def _note_changes(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Warn of provenance that changed since the store was created, and note the change in the store."""
    changed = {field: now[field] for field in CHANGEABLE if before.get(field) != now[field]}
    for field, value in changed.items():
        warnings.warn(
            f"{field} was {before.get(field)} when {path} was created and is {value} now: rows agree to 1e-5, not bit for bit",
            InterpWarning,
            stacklevel=2,
        )
    if changed:
        add_attributes(path, f"continued {now['created']}", changed)
