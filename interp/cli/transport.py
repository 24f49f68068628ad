"""`interp transport`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.console import graceful
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
from interp.cli.results import AsJson, Channels, Figures, Format, draw, interval, papers_say, show
from interp.cli.workers import Scheduler, WorkerCount, saying_rates, spread_experiment

if TYPE_CHECKING:
    import xarray as xr


def transport(
    model: ModelName,
    source: Annotated[Path, typer.Option(help="A prompts file: whose channels are taken.")],
    target: Annotated[Path, typer.Option(help="A prompts file, line by line beside --source: whose run they are put into.")],
    out: Out,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder of source pictures, by name in the order of the lines: sources instead of runs.")
    ] = None,
    strengths: Annotated[str, typer.Option(help="How far to move, 1 replaces.")] = "0.25,0.5,0.75,1",
    mask: Annotated[
        str, typer.Option(help="everywhere, or subject: the source's foreground by its massive channels.")
    ] = "everywhere",
    blocks: Annotated[str | None, typer.Option(help='Blocks, such as "0-3". [default: all]')] = None,
    steps_moved: Annotated[str | None, typer.Option(help='Steps in which to move, such as "0-9". [default: all]')] = None,
    channels: Channels = None,
    run: RunOption = None,
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
    """Put a source's massive channels into the target's run, and measure how far the picture moves; beside control channels."""
    from interp.cli.experiments import parse_numbers
    from interp.experiments import transport as experiment
    from interp.experiments.disrupt import read_reference
    from interp.figures import drawn as pictures_of
    from interp.figures import experiments as drawn
    from interp.tracing.model import load

    loading: dict[str, Any] = {"device": device, "dtype": dtype}
    through = spread_experiment(workers, scheduler, loading, model, run)
    prepared = experiment.transport(
        load(model, **loading),
        source,
        target,
        out=out,
        pictures=None if pictures is None else read_reference(pictures),
        channels=channels,
        run=run,
        blocks=blocks,
        steps_moved=steps_moved,
        strengths=parse_numbers(strengths, "strengths"),
        mask=mask,
        steps=steps,
        seed=seed,
        repeats=repeats,
        batch_size=batch_size,
    )
    say_cost(prepared.cost, len(prepared.target.plan.rows()), len(prepared.arms))
    if dry_run:
        return
    with saying_rates(through), drawing_progress() as on_progress, graceful() as stopped:
        made = prepared.run(batch_size=batch_size, through=through, on_progress=on_progress, stopped=stopped)
    found = made.result("transport")
    show({"transport": (found, transport_rows(found))}, as_json)
    papers_say(["transport"], as_json)
    rows, arms = list(range(min(made.done.shape[0], 5))), [0, *range(2, made.done.shape[1]), 1]
    made_figures: dict[str, Any] = {
        "transport": lambda: drawn.transport(found),
        "strip": lambda: pictures_of.strip(made, rows, arms),
    }
    draw(figures, kind, made_figures)


def transport_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every metric, set of channels and strength."""
    rows = []
    for metric in found["metric"].to_numpy():
        for name in found["channels"].to_numpy():
            for strength in found["strength"].to_numpy():
                one = found.sel(metric=metric, channels=name, strength=strength)
                rows.append(
                    {
                        "metric": str(metric),
                        "channels": str(name),
                        "strength": float(strength),
                        "moved": float(one["moved"]),
                        "interval": interval(one["moved_low"], one["moved_high"]),
                        "distance to source": float(one["to_source"]),
                        "distance to target": float(one["to_target"]),
                    }
                )
    return rows
