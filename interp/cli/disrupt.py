"""`interp disrupt`."""

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
from interp.cli.results import AsJson, Channels, Figures, Format, draw, interval, papers_say, show
from interp.cli.workers import Scheduler, WorkerCount, saying_rates, spread_experiment

if TYPE_CHECKING:
    import xarray as xr


def disrupt(
    model: ModelName,
    prompts: Prompts,
    out: Out,
    blocks: Annotated[list[str], typer.Option(help='A set of blocks, "4", "2-5" or "all"; give it again for more.')] = ["all"],  # noqa: B006
    stream: Annotated[str, typer.Option(help="image, text or both.")] = "image",
    channels: Channels = None,
    run: RunOption = None,
    controls: Annotated[int, typer.Option(help="Draws of each random control.")] = 3,
    reach: Annotated[str, typer.Option(help="LayerNorms that the norm controls act on: all later ones, or the next.")] = "all",
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
    """Take massive channels away, beside every control, and measure what becomes of structure and detail."""
    from interp.experiments import disrupt as experiment
    from interp.figures import drawn as pictures_of
    from interp.figures import experiments as drawn
    from interp.tracing.model import load

    real = None if reference is None else experiment.read_reference(reference)
    loading: dict[str, Any] = {"device": device, "dtype": dtype}
    through = spread_experiment(workers, scheduler, loading, model, run)
    prepared = experiment.disrupt(
        load(model, **loading),
        prompts,
        out=out,
        channels=channels,
        run=run,
        blocks=blocks,
        stream=stream,
        repeats_of_controls=controls,
        reach=reach,
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
    found = made.result("disruption")
    show(disruption_sections(found), as_json)
    papers_say(["disruption"], as_json)
    arms = list(range(min(made.done.shape[1], 10)))
    pictures: dict[str, Any] = {
        "disruption": lambda: drawn.disruption(found),
        "pictures": lambda: pictures_of.strip(made, list(range(min(made.done.shape[0], 6))), arms),
    }
    draw(figures, kind, pictures)


def disruption_sections(found: xr.Dataset) -> dict[str, tuple[xr.Dataset, list[dict[str, Any]]]]:
    """A table for every measure, and one of wins; a row for every arm."""
    sections = {str(name): (found, measure_rows(found.sel(measure=name))) for name in found["measure"].to_numpy()}
    return {**sections, "wins against the original": (found, win_rows(found))}


def measure_rows(one: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every arm, of one measure."""
    return [
        {
            "arm": str(arm["arm"].values).replace("_", " "),
            "energy changed": float(arm["changed_energy"]),
            str(one["measure"].values).replace("_", " "): float(arm["value"]),
            "interval": interval(arm["low"], arm["high"]),
            "less the random control": float(arm["over_control"]),
            "its interval": interval(arm["over_control_low"], arm["over_control_high"]),
            "verdict": str(arm["verdict"].values),
        }
        for arm in (one.isel(arm=number) for number in range(one.sizes["arm"]))
    ]


def win_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every arm: how often it wins, and what happened in the halves of the picture."""
    rows = []
    for number in range(found.sizes["arm"]):
        arm = found.isel(arm=number)
        row: dict[str, Any] = {"arm": str(arm["arm"].values).replace("_", " ")}
        for name in (str(name) for name in found["won"].to_numpy()):
            won = arm.sel(won=name)
            row |= {f"wins in {name}": float(won["win"]), f"{name} interval": interval(won["win_low"], won["win_high"])}
        rows.append({**row, "difference left": float(arm["left"]), "difference right": float(arm["right"])})
    return rows
