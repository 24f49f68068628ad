"""`interp patch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.console import graceful, human_bytes, say
from interp.cli.experiments import (
    BatchSize,
    Device,
    DryRun,
    Dtype,
    ModelName,
    Out,
    Repeats,
    RunOption,
    Seed,
    Steps,
    drawing_progress,
    say_cost,
)
from interp.cli.results import AsJson, Channels, Figures, Format, draw, interval, show
from interp.cli.workers import Scheduler, WorkerCount, saying_rates, spread_experiment

if TYPE_CHECKING:
    import xarray as xr


def patch(
    model: ModelName,
    clean: Annotated[Path, typer.Option(help="A prompts file: where values are taken from.")],
    corrupted: Annotated[Path, typer.Option(help="A prompts file, line by line beside --clean: where they are put in.")],
    out: Out,
    what: Annotated[
        str | None,
        typer.Option(help="Any of hidden,massive,control,alpha,everything. [default: the first four; no alpha with --regions]"),
    ] = None,
    blocks: Annotated[str | None, typer.Option(help='Blocks, such as "0-3". [default: all]')] = None,
    windows: Annotated[int | None, typer.Option(help="Equal parts of the steps. [default: every step]")] = None,
    regions: Annotated[int | None, typer.Option(help="Instead of steps: the picture in REGIONS x REGIONS parts.")] = None,
    stream: Annotated[str, typer.Option(help="image, text or both.")] = "image",
    channels: Channels = None,
    run: RunOption = None,
    metric: Annotated[str, typer.Option(help="picture, structure or latents: what is shown (all are kept).")] = "picture",
    steps: Steps = None,
    seed: Seed = 0,
    repeats: Repeats = 1,
    batch_size: BatchSize = 8,
    workers: WorkerCount = None,
    scheduler: Scheduler = None,
    device: Device = "auto",
    dtype: Dtype = None,
    dry_run: DryRun = False,
    figures: Figures = None,
    kind: Format = "html",
    as_json: AsJson = False,
) -> None:
    """Activation patching: clean values in the corrupted run at every block x step, and how much of the picture comes back."""
    from interp.analysis.patching import METRICS
    from interp.errors import InputError
    from interp.experiments import patch as experiment
    from interp.figures import drawn as pictures_of
    from interp.figures import experiments as drawn
    from interp.tracing.model import load

    if metric not in METRICS:
        raise InputError(f"metric must be one of {', '.join(METRICS)}; got {metric!r}")
    loading: dict[str, Any] = {"device": device, "dtype": dtype}
    through = spread_experiment(workers, scheduler, loading, model, run)
    prepared = experiment.patch(
        load(model, **loading),
        clean,
        corrupted,
        out=out,
        what=None if what is None else [name.strip() for name in what.split(",") if name.strip()],
        blocks=blocks,
        windows=windows,
        regions=regions,
        stream=stream,
        channels=channels,
        run=run,
        steps=steps,
        seed=seed,
        repeats=repeats,
        batch_size=batch_size,
    )
    say_cost(prepared.cost, len(prepared.prepared.plan.rows()), len(prepared.arms))
    say(f"states of the clean run held in memory: {human_bytes(prepared.memory)}")
    if dry_run:
        return
    with saying_rates(through), drawing_progress() as on_progress, graceful() as stopped:
        made = prepared.run(batch_size=batch_size, through=through, on_progress=on_progress, stopped=stopped)
    found = made.result(f"patching_{metric}")
    show({"patching": (found, patch_rows(found))}, as_json)
    rows = list(range(min(made.done.shape[0], 4)))
    pictures: dict[str, Any] = {
        "patching": lambda: drawn.patch_grid(found),
        "pictures": lambda: pictures_of.strip(made, rows, list(range(min(made.done.shape[1], 10)))),
    }
    draw(figures, kind, pictures)


def patch_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every block and thing patched: its best column, and the mean over columns."""
    rows = []
    for what in found["what"].to_numpy():
        for block in found["block"].to_numpy():
            one = found.sel(what=what, block=block)
            if bool(one["recovered"].isnull().all()):
                continue
            best = one.isel(column=int(one["recovered"].argmax("column")))
            rows.append(
                {
                    "patched": str(what),
                    "block": int(block),
                    "recovered, mean of cells": float(one["recovered"].mean()),
                    "best cell": str(best["column"].values),
                    "recovered there": float(best["recovered"]),
                    "interval": interval(best["recovered_low"], best["recovered_high"]),
                }
            )
    return rows
