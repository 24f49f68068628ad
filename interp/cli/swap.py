"""`interp swap`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.console import say
from interp.cli.experiments import Device, Dtype, ModelName, Out, Prompts, Repeats, RunOption, Seed, Steps
from interp.cli.results import AsJson, Channels, Figures, Format, draw, interval, papers_say, show

if TYPE_CHECKING:
    import xarray as xr


def swap(
    model: ModelName,
    prompts: Prompts,
    out: Out,
    pair: Annotated[
        str | None, typer.Option(help='An early and a late step, "4,16". [default: at a fifth and four fifths]')
    ] = None,
    stream: Annotated[str, typer.Option(help="image or text.")] = "image",
    channels: Channels = None,
    run: RunOption = None,
    steps: Steps = None,
    seed: Seed = 0,
    repeats: Repeats = 1,
    device: Device = "auto",
    dtype: Dtype = None,
    figures: Figures = None,
    kind: Format = "html",
    as_json: AsJson = False,
) -> None:
    """Timestep or text, by intervention: swap what the model is told, at fixed latents, and measure the massive channels."""
    from interp.errors import InputError
    from interp.experiments import swap as experiment
    from interp.figures import experiments as drawn
    from interp.sites import parse_indices
    from interp.tracing.model import load

    two = parse_indices(pair, "pair")
    if two is not None and len(two) != 2:
        raise InputError(f"pair must be two steps, such as 4,16; got {pair!r}")
    found = experiment.swap(
        load(model, device=device, dtype=dtype),
        prompts,
        out=out,
        channels=channels,
        run=run,
        pair=None if two is None else (two[0], two[1]),
        stream=stream,
        on_row=lambda done, total: say(f"{done}/{total} rows"),
        steps=steps,
        seed=seed,
        repeats=repeats,
    )
    show(
        {"how far each swap moves the size (log2)": (found, effect_rows(found)), "shares": (found, share_rows(found))}, as_json
    )
    papers_say(["attribution"], as_json)
    say(f"kept in {out}")
    draw(figures, kind, {"swap": lambda: drawn.swap(found)})


def effect_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every factor and block."""
    rows = []
    for factor in found["factor"].to_numpy():
        for block in found["block"].to_numpy():
            row: dict[str, Any] = {"swapped": str(factor), "block": int(block)}
            for group in (str(name) for name in found["set"].to_numpy()):
                one = found.sel(factor=factor, block=block, set=group)
                row |= {
                    f"{group} moved": float(one["moved"]),
                    f"{group} interval": interval(one["moved_low"], one["moved_high"]),
                }
                row[f"{group} effect"] = float(one["effect"]) if factor in ("timestep", "latents") else float("nan")
            rows.append(row)
    return rows


def share_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every factor and block: its share of the variance over the factorial; interactions are summed at the end."""
    rows: list[dict[str, Any]] = []
    terms = [str(term) for term in found["term"].to_numpy()]
    groups = [str(name) for name in found["set"].to_numpy()]
    for term in (term for term in terms if ":" not in term):
        for block in found["block"].to_numpy():
            row: dict[str, Any] = {"term": term, "block": int(block)}
            for group in groups:
                one = found.sel(term=term, block=block, set=group)
                row |= {group: float(one["share"]), f"{group} interval": interval(one["share_low"], one["share_high"])}
            rows.append(row)
    for block in found["block"].to_numpy():
        row = {"term": "all interactions", "block": int(block)}
        for group in groups:
            together = found["share"].sel(term=[term for term in terms if ":" in term], block=block, set=group)
            row |= {group: float(together.sum()), f"{group} interval": [float("nan")] * 2}
        rows.append(row)
    return rows
