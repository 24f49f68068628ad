"""`interp govern`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.console import say
from interp.cli.results import AsJson, Channels, interval, show

if TYPE_CHECKING:
    import xarray as xr


def govern(
    model: Annotated[str, typer.Option(help="Alias (see `interp models`), diffusers folder, or hub id.")],
    prompts: Annotated[Path, typer.Option(help="A prompts file.")],
    out: Annotated[Path, typer.Option(help="Folder of the experiment's stores; the same call goes on where it stopped.")],
    channels: Channels = None,
    blocks: Annotated[str | None, typer.Option(help='Blocks, such as "0-3". [default: all]')] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps. [default: the model's]")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every prompt.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Prompts traced together.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    as_json: AsJson = False,
) -> None:
    """Does alpha govern the massive channels? Clamp it there, and raise it elsewhere, block by block."""
    from interp.experiments.govern import clamp_alpha
    from interp.store.results import write_result
    from interp.tracing.model import load

    loaded = load(model, device=device, dtype=dtype)
    gates, count = len(loaded.anatomy.gates), len(loaded.anatomy.blocks)
    say(f"one original run and up to {3 * gates} for each of up to {count} blocks, all in {out}")
    found = clamp_alpha(
        loaded,
        prompts,
        out=out,
        channels=channels,
        blocks=blocks,
        steps=steps,
        seed=seed,
        batch_size=batch_size,
        on_arm=lambda done, total, name: say(f"{done}/{total} {name}"),
    )
    show({"govern": (found, govern_rows(found))}, as_json)
    write_result(out / "original.zarr", "govern", found)
    say(f"kept in {out / 'original.zarr'}: analysis/govern")


def govern_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every block, gate and arm."""
    rows = []
    for block in found["block"].to_numpy():
        for gate in found["gate"].to_numpy():
            for arm in found["arm"].to_numpy():
                one = found.sel(block=block, gate=gate, arm=arm)
                own, last = one.sel(measured="own"), one.sel(measured="last")
                if bool(own["ratio"].isnull()):
                    continue
                rows.append(
                    {
                        "block": int(block),
                        "gate": str(gate),
                        "alpha": str(arm).replace("_", " "),
                        "size there / original": float(own["ratio"]),
                        "interval": interval(own["ratio_low"], own["ratio_high"]),
                        "at the last block": float(last["ratio"]),
                        "its interval": interval(last["ratio_low"], last["ratio_high"]),
                        "over the median channel": float(one["over_median"]),
                    }
                )
    return rows
