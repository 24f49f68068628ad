"""`interp segment`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.results import (
    AsJson,
    Channels,
    Figures,
    Format,
    RunPath,
    Save,
    draw,
    interval,
    keep,
    open_source,
    papers_say,
    show,
)

if TYPE_CHECKING:
    import xarray as xr


def segment(
    run: RunPath,
    masks: Annotated[Path | None, typer.Option(help="Folder of true masks, NNNNN-mask.png by row.")] = None,
    channels: Channels = None,
    k: Annotated[int, typer.Option(help="Channels of each set that is compared with the masks.")] = 12,
    steps: Annotated[str, typer.Option(help='Steps, such as "0,10,19"; -1 is the last one stored.')] = "-1",
    blocks: Annotated[str | None, typer.Option(help='Blocks, such as "3-5". [default: all stored]')] = None,
    values: Annotated[str, typer.Option(help="magnitude (|x|) or signed.")] = "magnitude",
    save: Save = True,
    figures: Figures = None,
    kind: Format = "html",
    as_json: AsJson = False,
) -> None:
    """Cluster image tokens on few channels into fore- and background; with --masks, score that against the truth."""
    from interp.analysis import massive
    from interp.analysis import segmentation as analysis
    from interp.errors import InputError
    from interp.figures import places as drawn

    opened = open_source(run)
    results: dict[str, xr.Dataset] = {}
    sections: dict[str, Any] = {}
    made: dict[str, Any] = {}
    try:
        chosen = massive.channels_of(opened, channels, "image")
    except InputError:
        if masks is None or channels is not None:
            raise
        chosen = []
    if chosen:
        results["segmentation"] = analysis.masks(opened, chosen, steps=steps, blocks=blocks, values=values)
        sections["segmentation"] = (results["segmentation"], area_rows(results["segmentation"]))
        made["clusters"] = lambda: drawn.clusters(results["segmentation"])
        made["heat"] = lambda: drawn.token_map(results["segmentation"]["heat"].isel(prompt=0, step=-1, block=-1))
    if masks is not None:
        rows = [int(row) for row in opened.images["prompt"].to_numpy()]
        truth = analysis.read_masks(masks, rows)
        results["segmentation_score"] = analysis.score(opened, truth, k=k, steps=steps, blocks=blocks, values=values)
        sections["IoU with the true masks"] = (results["segmentation_score"], score_rows(results["segmentation_score"]))
        made["overlap"] = lambda: drawn.overlap(results["segmentation_score"])
    show(sections, as_json)
    papers_say(["segmentation"], as_json)
    keep(opened, results, save)
    draw(figures, kind, made)


def area_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every step and block: how much is foreground."""
    return [
        {
            "step": int(step),
            "block": int(block),
            "foreground, mean over prompts": float(found["mask"].sel(step=step, block=block).mean()),
        }
        for step in found["step"].to_numpy()
        for block in found["block"].to_numpy()
    ]


def score_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every strategy, step and block, and the trivial masks."""
    rows: list[dict[str, Any]] = [
        {
            "channels": str(strategy),
            "step": int(step),
            "block": int(block),
            "IoU": float(one["iou"]),
            "interval": interval(one["iou_low"], one["iou_high"]),
            "better side": float(one["either"]),
            "its interval": interval(one["either_low"], one["either_high"]),
        }
        for strategy in found["strategy"].to_numpy()
        for step in found["step"].to_numpy()
        for block in found["block"].to_numpy()
        for one in [found.sel(strategy=strategy, step=step, block=block)]
    ]
    for baseline in found["baseline"].to_numpy():
        value = float(found["trivial"].sel(baseline=baseline))
        rows.append(
            {
                "channels": f"none: {baseline}",
                "step": "-",
                "block": "-",
                "IoU": value,
                "interval": "-",
                "better side": "-",
                "its interval": "-",
            }
        )
    return rows
