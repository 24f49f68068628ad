"""`interp generate` and `interp sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.console import graceful, say
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
    Seed,
    Steps,
    drawing_progress,
    say_cost,
)
from interp.cli.results import AsJson, Figures, Format, draw, interval, papers_say, show
from interp.cli.workers import Scheduler, WorkerCount, saying_rates, spread

if TYPE_CHECKING:
    import xarray as xr

BRANCHES = ("rows", "sequential")


def generate(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="Folder for PNGs, sheet.png and recipe.json.")],
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; give it again for more.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A prompts file.")] = None,
    guidance: Annotated[
        str | None, typer.Option(help='Such as "cfg:4", "cfg:4+dg:1", "dg:1:channels=29:block=1". [default: none]')
    ] = None,
    negative_prompt: Annotated[str, typer.Option(help="What the unconditional branch is told.")] = "",
    run: Annotated[
        Path | None, typer.Option(help="A trace of the model: warn where dg edits channels that are not massive in it.")
    ] = None,
    seeds: Annotated[str, typer.Option(help='Seeds, such as "0", "0-3" or "1,7".')] = "0",
    steps: Steps = None,
    height: Annotated[int | None, typer.Option(help="Pixels. [default: the model's]")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels. [default: the model's]")] = None,
    branches: Annotated[
        str, typer.Option(help="rows: branches as rows of one batch; sequential: one by one, less memory.")
    ] = "rows",
    batch_size: Annotated[int, typer.Option(help="Prompts drawn together.")] = 1,
    device: Device = "auto",
    dtype: Dtype = None,
    offload: Annotated[str, typer.Option(help="none, model, sequential or group.")] = "none",
) -> None:
    """Draw pictures, guided or not; every PNG carries its recipe."""
    from interp.errors import InputError
    from interp.experiments.generate import generate as drawn_by
    from interp.experiments.save import save
    from interp.provenance import provenance
    from interp.sites import parse_indices
    from interp.tracing.model import load

    if (prompts is None) == (not prompt):
        raise InputError("prompts: give --prompt TEXT (once or more) or --prompts FILE")
    if branches not in BRANCHES:
        raise InputError(f"branches must be one of {', '.join(BRANCHES)}; got {branches!r}")
    chosen = parse_indices(seeds, "seeds") or ()
    if not chosen or min(chosen) < 0:
        raise InputError(f'seeds must be integers of at least 0, such as "0-3"; got {seeds!r}')
    loaded = load(model, device=device, dtype=dtype, offload=offload)
    if run is not None:
        from interp.guidance.presets import check_run
        from interp.store.opened import open_run
        from interp.tracing.prepare import as_guidance

        given = as_guidance(guidance, loaded)
        check_run(given.methods if given is not None else (), open_run(run))
    parts: list[Any] = []
    for seed in chosen:
        parts.append(
            drawn_by(
                loaded,
                prompts if prompts is not None else prompt or [],
                guidance=guidance,
                negative_prompt=negative_prompt,
                steps=steps,
                seed=seed,
                height=height,
                width=width,
                batch_size=batch_size,
                sequential=branches == "sequential",
            )
        )
        say(f"seed {seed}: {parts[-1].sizes['prompt']} pictures")
    together = _joined(parts, list(chosen))
    paths = save(together, out, provenance(loaded, batch_size))
    for path in [*paths, out / "sheet.png"]:
        print(path)


def _joined(parts: list[Any], seeds: list[int]) -> Any:
    """One Dataset of all seeds; the plan is the first one's, its seed all of them."""
    import xarray as xr

    plan = {**parts[0].attrs["plan"], "seed": seeds if len(seeds) > 1 else seeds[0]}
    return xr.concat(parts, "prompt", combine_attrs="drop").assign_attrs(plan=plan)


def sweep(
    model: ModelName,
    prompts: Prompts,
    out: Out,
    guidance: Annotated[
        list[str],
        typer.Option(help='A setting, braces for several: "cfg:{1,2,4}+dg:{0.5,1}:block={0,1}"; give it again for more.'),
    ],
    negative_prompt: Annotated[str, typer.Option(help="What the unconditional branch is told.")] = "",
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
    """Every prompt under every guidance setting, into one store; the first setting ("none" is no guidance) is the baseline."""
    from interp.experiments import sweep as experiment
    from interp.experiments.disrupt import read_reference
    from interp.figures import guidance as drawn
    from interp.tracing.model import load

    real = None if reference is None else read_reference(reference)
    loading: dict[str, Any] = {"device": device, "dtype": dtype}
    through = spread(workers, scheduler, loading, model)
    prepared = experiment.sweep(
        load(model, **loading),
        prompts,
        guidance,
        out=out,
        negative_prompt=negative_prompt,
        steps=steps,
        seed=seed,
        repeats=repeats,
    )
    say_cost(prepared.cost, len(prepared.prepared[0].plan.rows()), len(prepared.settings))
    if dry_run:
        return
    with saying_rates(through), drawing_progress() as on_progress, graceful() as stopped:
        made = prepared.run(reference=real, batch_size=batch_size, through=through, on_progress=on_progress, stopped=stopped)
    found = made.result("sweep")
    show({str(name): (found, sweep_rows(found.sel(measure=name))) for name in found["measure"].to_numpy()}, as_json)
    papers_say(["guidance"], as_json)
    settings = list(range(min(made.done.shape[1], 14)))
    pictures: dict[str, Any] = {
        "sweep": lambda: drawn.sweep(found),
        "gallery": lambda: drawn.gallery(made, list(range(min(made.done.shape[0], 6))), settings),
    }
    draw(figures, kind, pictures)


def sweep_rows(one: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every setting, of one measure."""
    measure = str(one["measure"].values)
    rows = []
    for number in range(one.sizes["setting"]):
        here = one.isel(setting=number)
        row: dict[str, Any] = {
            "guidance": str(here["setting"].values),
            "forwards": float(here["forwards"]),
            measure: float(here["value"]),
            "interval": interval(here["low"], here["high"]),
            "less the first": float(here["over_first"]),
            "its interval": interval(here["over_first_low"], here["over_first_high"]),
        }
        if measure in here["won"].to_numpy().tolist():
            won = here.sel(won=measure)
            row |= {"wins": float(won["win"]), "wins interval": interval(won["win_low"], won["win_high"])}
        rows.append(row)
    return rows
