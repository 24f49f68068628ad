"""`interp trace`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.console import graceful, human_bytes, print_json, print_table, say, trace_progress
from interp.cli.workers import Scheduler, WorkerCount, saying_rates, spread
from interp.errors import InputError
from interp.plan import Record, at_least, parse_shard
from interp.store.places import located

if TYPE_CHECKING:
    from interp.tracing.prepare import Prepared

Option = typer.Option


def trace(
    model: Annotated[str, Option(help="Alias (see `interp models`), diffusers folder, or hub id.")],
    prompts: Annotated[Path, Option(help="Prompts: one a line, or a `prompt` column of a .tsv, .csv or .jsonl file.")],
    out: Annotated[Path | None, Option(help="The store to write or to continue. [default: cache/MODEL-PROMPTS.zarr]")] = None,
    steps: Annotated[int | None, Option(help="Sampling steps. [default: the model's]")] = None,
    seed: Annotated[int, Option(help="Seed of every prompt's first repeat.")] = 0,
    repeats: Annotated[int, Option(help="Pictures per prompt, with seeds SEED, SEED+1, ...")] = 1,
    height: Annotated[int | None, Option(help="Pixels. [default: the model's]")] = None,
    width: Annotated[int | None, Option(help="Pixels. [default: the model's]")] = None,
    guidance: Annotated[str | None, Option(help='Such as "cfg:4" or "cfg:4+dg:1"; recorded are the conditional rows.')] = None,
    negative_prompt: Annotated[str, Option(help="What the unconditional branch is told.")] = "",
    record: Annotated[str, Option(help="Any of stats,gates,hidden,modulation,prediction,branches,summary.")] = "stats,gates",
    bundle: Annotated[int | None, Option(help="Prompts that --record summary takes together. [default: 32]")] = None,
    blocks: Annotated[str | None, Option(help='Blocks of hidden to keep, such as "0,6,12-20". [default: all]')] = None,
    record_steps: Annotated[str | None, Option(help='Steps of hidden to keep, such as "0,-1". [default: all]')] = None,
    max_sequence_length: Annotated[int | None, Option(help="Tokens of the long text encoder. [default: the model's]")] = None,
    embedded_guidance: Annotated[
        float | None, Option(help="Guidance value given to a guidance-distilled model (FLUX.1 dev). [default: 3.5]")
    ] = None,
    batch_size: Annotated[int, Option(help="Prompts traced together.")] = 1,
    dtype: Annotated[str | None, Option(help="float32, bfloat16 or float16. [default: float32 on CPU, else bfloat16]")] = None,
    device: Annotated[str, Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    offload: Annotated[str, Option(help="none, model, sequential or group.")] = "none",
    quantize: Annotated[str | None, Option(help="int8, float8 or nf4: the blocks' weights; gates stay exact.")] = None,
    revision: Annotated[str | None, Option(help="Hub revision of the model.")] = None,
    local_files_only: Annotated[bool, Option("--local-files-only", help="Never use the network.")] = False,
    resume: Annotated[bool, Option(help="Continue a store of the same plan.")] = True,
    retry_failed: Annotated[bool, Option("--retry-failed", help="Try rows again that failed before.")] = False,
    workers: WorkerCount = None,
    scheduler: Scheduler = None,
    shard: Annotated[
        str | None, Option(help='Of n processes that write one store, this one\'s share: "0/4" to "3/4". For job arrays.')
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be written and how big; write nothing.")] = False,
    probe: Annotated[bool, Option(help="Let --dry-run trace one row, to see how it compresses and how long it takes.")] = True,
    as_json: Annotated[bool, Option("--json", help="Pure JSON on stdout.")] = False,
) -> None:
    """Trace a model over a file of prompts into a zarr store."""
    at_least("batch_size", batch_size, 1)
    share = parse_shard(shard)
    kept = Record.parse(record, blocks=blocks, steps=record_steps, bundle=bundle)
    from interp.run import execute
    from interp.tracing.model import load
    from interp.tracing.prepare import prepare

    loading: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "revision": revision,
        "offload": offload,
        "local_files_only": local_files_only,
        "quantize": quantize,
    }
    given = {"max_sequence_length": max_sequence_length, "embedded_guidance": embedded_guidance}
    arguments: dict[str, Any] = {
        "steps": steps,
        "seed": seed,
        "repeats": repeats,
        "height": height,
        "width": width,
        "guidance": guidance,
        "negative_prompt": negative_prompt,
        "record": kept,
        "settings": {name: value for name, value in given.items() if value is not None},
    }
    path = located(out) if out else Path("cache") / f"{Path(model).name}-{prompts.stem}.zarr"
    if (workers is not None or scheduler is not None) and (share is not None or dry_run):
        raise InputError("workers and scheduler do not go with --shard or --dry-run; leave one out")
    through = spread(workers, scheduler, loading, model)
    prepared = prepare(load(model, **loading), prompts, **arguments)
    if dry_run:
        _print_sizes(prepared, path, probe, as_json)
        return
    with saying_rates(through), trace_progress() as show, graceful() as stopped:
        run = execute(
            prepared,
            path,
            batch_size=batch_size,
            resume=resume,
            retry_failed=retry_failed,
            shard=share,
            through=through,
            on_progress=show,
            stopped=stopped,
        )
    if as_json:
        print_json({"store": str(path), "rows_done": run.rows_done, "rows_total": run.rows_total, **run.facts()})
        return
    print(path)
    done = f"{run.rows_done} of {run.rows_total} rows done"
    say(f"{done}; look at them with `interp info {path}` or interp.open_run({str(path)!r})")


def _print_sizes(prepared: Prepared, path: Path, probe: bool, as_json: bool) -> None:
    from interp.sizes import forecast

    if probe and not as_json:
        say("one row is traced to see how big it is (--no-probe leaves that out)")
    found = forecast(prepared, probe=probe)
    if as_json:
        rows = [
            {"variable": one.variable, "sizes": one.sizes, "bytes": one.bytes, "disk_bytes": one.disk_bytes}
            for one in found.variables
        ]
        sizes = {"bytes": found.bytes, "disk_bytes": found.disk_bytes, "seconds_a_row": found.seconds_a_row}
        print_json({"store": str(path), "plan": prepared.plan.to_json(), "variables": rows, **sizes})
        return
    table = [
        [one.variable, " x ".join(f"{axis} {size}" for axis, size in one.sizes.items()), human_bytes(one.disk_bytes)]
        for one in found.variables
    ]
    print_table(f"{path} would hold", ["variable", "axes", "on disk, about"], table)
    print(
        f"{found.rows} rows, about {human_bytes(found.disk_bytes)} on disk ({human_bytes(found.bytes)} in memory). "
        "Nothing was written."
    )
    if found.seconds_a_row is not None:
        seconds = found.seconds_a_row * found.rows
        took = (
            f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
        )
        print(f"Here it would take about {took}: the first row, one by itself, took {found.seconds_a_row:.1f} s.")
