"""`interp trace`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal
from typing_extensions import Doc

from interp.base.errors import InputError, counted
from interp.base.executor import Execution
from interp.base.options import Loading, Prompts, Sampling, parse_shard, text_of
from interp.base.plan import Record
from interp.base.site_recorder import at_least
from interp.cli.console import graceful, print_json, print_table, progress, say
from interp.cli.experiments import Spread, saying_rates, spread_work
from interp.cli.results import AsJson
from interp.store.locations import located

if TYPE_CHECKING:
    from interp.tracing.prepare import Prepared

Option = typer.Option
ALONE, HERE = Execution(), Spread()


@dataclasses.dataclass(frozen=True)
class Recording:
    """What is recorded of every row."""

    record: Annotated[str, Doc("Any of stats,gates,hidden,modulation,prediction,branches,frames,summary.")] = "stats,gates"
    bundle: Annotated[int | None, Doc("Prompts that --record summary reduces together. [default: 32]")] = None
    blocks: Annotated[str | None, Doc('Blocks of hidden to keep, such as "0,6,12-20". [default: all]')] = None
    record_steps: Annotated[str | None, Doc('Steps of hidden to keep, such as "0,-1". [default: all]')] = None


@dataclasses.dataclass(frozen=True)
class Preview:
    """Whether only to print what would be written."""

    probe: Annotated[bool, Doc("With --dry-run, trace one row to measure its compressed size and its time.")] = True
    dry_run: Annotated[bool, Doc("Print the variables and sizes to be written; write nothing.")] = False


@dataclasses.dataclass(frozen=True)
class Resuming:
    """Which of a store's rows to trace."""

    resume: Annotated[bool, Doc("Continue a store of the same plan.")] = True
    retry_failed: Annotated[bool, Doc("Retry rows that failed before.")] = False
    shard: Annotated[
        str | None, Doc('This process\'s share of the rows of a shared store: "0/4" to "3/4". For job arrays.')
    ] = None


def trace(
    loading: Loading,
    prompts: Annotated[Path, Option(help=text_of(Prompts))],
    sampling: Sampling,
    out: Annotated[Path | None, Option(help="The store to write or to continue. [default: cache/MODEL-PROMPTS.zarr]")] = None,
    recording: Recording = Recording(),
    resuming: Resuming = Resuming(),
    execution: Execution = ALONE,
    over: Spread = HERE,
    preview: Preview = Preview(),
    as_json: AsJson = False,
) -> None:
    """Trace a model over a file of prompts into a zarr store."""
    at_least("batch_size", execution.batch_size, 1)
    share = parse_shard(resuming.shard)
    kept = Record.parse(recording.record, blocks=recording.blocks, steps=recording.record_steps, bundle=recording.bundle)
    from interp.runs.run import execute
    from interp.tracing.model import load
    from interp.tracing.prepare import prepare

    path = located(out) if out else Path("cache") / f"{Path(loading.model).name}-{prompts.stem}.zarr"
    if over and (share is not None or preview.dry_run):
        raise InputError("workers and scheduler do not go with --shard or --dry-run; leave one out")
    through, here = spread_work(over, loading)
    prepared = prepare(load(**vars(here)), prompts, sampling, record=kept)
    if preview.dry_run:
        _print_sizes(prepared, path, preview.probe, as_json)
        return
    with saying_rates(through), progress("prompts") as show, graceful() as stopped:
        how = dataclasses.replace(execution, through=through, on_progress=show, stopped=stopped)
        run = execute(prepared, path, how, resume=resuming.resume, retry_failed=resuming.retry_failed, shard=share)
    if as_json:
        print_json({"store": str(path), "rows_done": run.rows_done, "rows_total": run.rows_total, **run.facts()})
        return
    print(path)
    done = f"{run.rows_done} of {run.rows_total} rows done"
    say(f"{done}; inspect them with `interp info {path}` or interp.open_run({str(path)!r})")


def _print_sizes(prepared: Prepared, path: Path, probe: bool, as_json: bool) -> None:
    from interp.runs.sizes import forecast

    if probe and not as_json:
        say("one row is traced to measure its size (--no-probe skips this)")
    found = forecast(prepared, probe=probe)
    if as_json:
        rows = [dataclasses.asdict(one) for one in found.variables]
        sizes = {"bytes": found.bytes, "disk_bytes": found.disk_bytes, "seconds_a_row": found.seconds_a_row}
        print_json({"store": str(path), "plan": prepared.plan.to_json(), "variables": rows, **sizes})
        return
    table = [
        [one.variable, " x ".join(f"{axis} {size}" for axis, size in one.sizes.items()), decimal(one.disk_bytes)]
        for one in found.variables
    ]
    print_table(f"{path} would hold", ["variable", "axes", "on disk, about"], table)
    print(
        f"{counted(found.rows, 'row')}, about {decimal(found.disk_bytes)} on disk ({decimal(found.bytes)} in memory). "
        "Nothing was written."
    )
    if found.seconds_a_row is not None:
        seconds = found.seconds_a_row * found.rows
        took = (
            f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
        )
        print(f"Estimated time on this machine: {took}; one row alone took {found.seconds_a_row:.1f} s.")
