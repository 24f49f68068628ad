"""`interp dose`."""

from __future__ import annotations

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
    Prompts,
    Reference,
    Repeats,
    RunOption,
    Seed,
    Steps,
    drawing_progress,
    say_cost,
)
from interp.cli.results import AsJson, Figures, Format, draw, interval, papers_say, show
from interp.cli.workers import Scheduler, WorkerCount, saying_rates, spread_experiment

if TYPE_CHECKING:
    import xarray as xr


def dose(
    model: ModelName,
    prompts: Prompts,
    out: Out,
    counts: Annotated[str | None, typer.Option(help='Numbers of channels, "1,2,8". [default: 1, 2, 4, ... a quarter]')] = None,
    block: Annotated[
        int | None, typer.Option(help="The block of the smallest dose. [default: a quarter into the model]")
    ] = None,
    windows: Annotated[str, typer.Option(help="Steps: any of all,early,late.")] = "all,early,late",
    budget: Annotated[
        int, typer.Option(help="Pictures at most; beyond, every dose is drawn for a part of the prompts.")
    ] = 2000,
    run: RunOption = None,
    reference: Reference = None,
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
    """Dose and response: channels x blocks x steps zeroed, massive against controls; where each paper's claim holds."""
    from interp.experiments import dose as experiment
    from interp.experiments.disrupt import read_reference
    from interp.figures import experiments as drawn
    from interp.sites import parse_indices
    from interp.tracing.model import load

    real = None if reference is None else read_reference(reference)
    loading: dict[str, Any] = {"device": device, "dtype": dtype}
    through = spread_experiment(workers, scheduler, loading, model, run)
    prepared = experiment.dose(
        load(model, **loading),
        prompts,
        out=out,
        counts=parse_indices(counts, "counts"),
        block=block,
        windows=[name.strip() for name in windows.split(",") if name.strip()],
        run=run,
        budget=budget,
        steps=steps,
        seed=seed,
        repeats=repeats,
        batch_size=batch_size,
    )
    say_cost(prepared.cost, len(prepared.prepared.plan.rows()), len(prepared.arms))
    if dry_run:
        return
    with saying_rates(through), drawing_progress() as on_progress, graceful() as stopped:
        made = prepared.run(reference=real, batch_size=batch_size, through=through, on_progress=on_progress, stopped=stopped)
    found = made.result("dose")
    show({"dose and response": (found, dose_rows(found))}, as_json)
    papers_say(["disruption"], as_json)
    draw(figures, kind, {"dose": lambda: drawn.dose(found)})


def dose_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every dose."""
    rows = []
    for number in range(found.sizes["dose"]):
        one = found.isel(dose=number)
        row: dict[str, Any] = {"zeroed": str(one["dose"].values), "amount": float(one["amount"])}
        for name in (str(name) for name in found["measure"].to_numpy()):
            part = one.sel(measure=name)
            shown = name.replace("_", " ")
            row |= {shown: float(part["value"]), f"{shown} interval": interval(part["low"], part["high"])}
            row[f"{shown} less control"] = float(part["over_control"])
        rows.append({**row, "outcome": str(one["outcome"].values), "prompts": int(one["prompts"])})
    return rows
