"""`interp lens`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.experiments import Device, Dtype, ModelName, Out, RunOption, Steps, drawing_progress
from interp.cli.results import AsJson, Figures, Format, draw, interval, show

if TYPE_CHECKING:
    import xarray as xr


def lens(
    model: ModelName,
    out: Out,
    prompts: Annotated[Path | None, typer.Option(help="A prompts file: run live.")] = None,
    stored: Annotated[Path | None, typer.Option(help="A traced store with all hidden image states: paint from those.")] = None,
    blocks: Annotated[str | None, typer.Option(help='Blocks, such as "0,4,7". [default: all]')] = None,
    steps_shown: Annotated[str | None, typer.Option(help='Steps, such as "0,5,-1". [default: all]')] = None,
    without: Annotated[
        str, typer.Option(help='Channels removed for a second picture: "massive", "3,20" or "none".')
    ] = "massive",
    run: RunOption = None,
    steps: Steps = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every prompt's first repeat. [default: 0]")] = None,
    repeats: Annotated[int | None, typer.Option(help="Pictures per prompt. [default: 1]")] = None,
    device: Device = "auto",
    dtype: Dtype = None,
    figures: Figures = None,
    kind: Format = "html",
    as_json: AsJson = False,
) -> None:
    """The picture the model would paint if it stopped at a block, for every block and step."""
    from interp.experiments import lens as experiment
    from interp.figures import drawn as pictures_of
    from interp.tracing.model import load

    given = {name: v for name, v in {"steps": steps, "seed": seed, "repeats": repeats}.items() if v is not None}
    with drawing_progress() as on_progress:
        made = experiment.lens(
            load(model, device=device, dtype=dtype),
            prompts,
            out=out,
            stored=stored,
            blocks=blocks,
            steps_shown=steps_shown,
            without=None if without == "none" else without,
            run=run,
            on_progress=on_progress,
            **given,
        )
    found = made.result("lens")
    show({"lens": (found, lens_rows(found))}, as_json)
    made_figures: dict[str, Any] = {
        "structure": lambda: pictures_of.lens(found),
        "detail": lambda: pictures_of.lens(found, "detail"),
    }
    for kind_of_state in (str(name) for name in found["kind"].to_numpy()):
        name = f"pictures-{kind_of_state.split()[0]}"
        made_figures[name] = lambda which=kind_of_state: pictures_of.lens_pictures(made, kind=which)
    draw(figures, kind, made_figures)


def lens_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every kind, measure and block: at the first, middle and last step shown."""
    steps = found["step"].to_numpy()
    shown = list(dict.fromkeys([int(steps[0]), int(steps[len(steps) // 2]), int(steps[-1])]))
    rows = []
    for state in found["kind"].to_numpy():
        for measure in found["measure"].to_numpy():
            for block in found["block"].to_numpy():
                row: dict[str, Any] = {"state": str(state), "measure": str(measure), "block": int(block)}
                for step in shown:
                    one = found.sel(kind=state, measure=measure, block=block, step=step)
                    row |= {f"step {step}": float(one["value"]), f"interval {step}": interval(one["low"], one["high"])}
                rows.append(row)
    return rows
