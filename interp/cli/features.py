"""`interp features`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.console import say
from interp.cli.experiments import Device, Dtype, ModelName, Seed, Steps, parse_numbers
from interp.cli.results import AsJson, Figures, Format, draw, interval, show
from interp.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from interp.analysis.correspondence import Pair

Option = typer.Option


def features(
    model: ModelName,
    pairs: Annotated[str, Option(help="How many pairs of the demo world; or a JSON file of pairs (docs/features.md).")] = "60",
    channels: Annotated[str | None, Option(help="Channels to discard. [default: DiTF's, or the catalog's]")] = None,
    blocks: Annotated[str | None, Option(help="Blocks whose input is described, 1 or later. [default: DiTF's, or all]")] = None,
    steps_at: Annotated[str | None, Option(help="Sampling steps whose noise level is used. [default: the middle one]")] = None,
    thresholds: Annotated[str, Option(help="PCK's, shares of the subject's larger side.")] = "0.1,0.15,0.2,0.3",
    out: Annotated[Path | None, Option(help="Keep the result as a zarr folder.")] = None,
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = None,
    figures: Figures = None,
    kind: Format = "html",
    as_json: AsJson = False,
) -> None:
    """Describe image tokens with and without massive channels, and score what corresponds by them (PCK)."""
    from interp.experiments.features import correspond, default_blocks, default_channels
    from interp.figures.places import pck
    from interp.store.results import write_dataset
    from interp.tracing.model import load

    asked = _pairs(pairs, model)
    loaded = load(model, device=device, dtype=dtype)
    found = correspond(
        loaded,
        asked,
        channels=channels if channels is not None else default_channels(loaded),
        blocks=blocks if blocks is not None else default_blocks(loaded),
        steps_at=steps_at,
        thresholds=parse_numbers(thresholds, "thresholds"),
        steps=steps,
        seed=seed,
        on_pair=lambda done, total: say(f"{done}/{total} pairs") if done % 10 == 0 or done == total else None,
    )
    if out is not None:
        write_dataset(out, found)
        say(f"kept in {out}")
    show({"PCK": (found, pck_rows(found)), "differences": (found, gain_rows(found))}, as_json)
    draw(figures, kind, {"pck": lambda: pck(found)})


def _pairs(given: str, model: str) -> list[Pair]:
    """Pairs of the demo world, or of a file."""
    from interp.experiments.pairs import demo_pairs, read_pairs

    if given.isdecimal():
        if not model.startswith("demo"):
            raise InputError(f"pairs: the demo world's are for the demo model; give --pairs FILE.json for {model}")
        return demo_pairs(int(given))
    return read_pairs(given)


def pck_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every kind, step and block, a column for every threshold; then the controls."""
    rows = []
    for kind in found["kind"].to_numpy():
        for step in found["step"].to_numpy():
            for block in found["block"].to_numpy():
                row: dict[str, Any] = {"descriptor": str(kind), "step": int(step), "block": int(block)}
                for threshold in found["threshold"].to_numpy():
                    one = found.sel(kind=kind, step=step, block=block, threshold=threshold)
                    row |= {
                        f"PCK@{threshold:g}": float(one["pck"]),
                        f"@{threshold:g}": interval(one["pck_low"], one["pck_high"]),
                    }
                rows.append(row)
    for name in found["baseline"].to_numpy():
        row = {"descriptor": f"none: {name}", "step": "-", "block": "-"}
        for threshold in found["threshold"].to_numpy():
            value = float(found["beside"].sel(baseline=name, threshold=threshold))
            row |= {f"PCK@{threshold:g}": value, f"@{threshold:g}": "-"}
        rows.append(row)
    return rows


def gain_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every difference, step, block and threshold."""
    return [
        {
            "difference": str(name),
            "step": int(step),
            "block": int(block),
            "threshold": float(threshold),
            "PCK": float(one["gain"]),
            "interval": interval(one["gain_low"], one["gain_high"]),
        }
        for name in found["difference"].to_numpy()
        for step in found["step"].to_numpy()
        for block in found["block"].to_numpy()
        for threshold in found["threshold"].to_numpy()
        for one in [found.sel(difference=name, step=step, block=block, threshold=threshold)]
    ]
