"""`interp alignment`, `interp attribute`, `interp residual`, `interp compare`."""

from __future__ import annotations

from functools import partial
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
    Stream,
    draw,
    interval,
    keep,
    open_source,
    papers_say,
    show,
)

if TYPE_CHECKING:
    import xarray as xr


def alignment(
    run: RunPath,
    stream: Stream = "image",
    k: Annotated[int, typer.Option(help="Channels of the overlap.")] = 8,
    save: Save = True,
    figures: Figures = None,
    kind: Format = "html",
    as_json: AsJson = False,
) -> None:
    """Do channels of large alpha hold the large activations? Per block and gate, beside another block's alpha."""
    from interp.analysis import alignment as analysis
    from interp.figures import causes as drawn

    opened = open_source(run)
    found = analysis.compare(opened, stream=stream, k=k)
    show({"alignment": (found, alignment_rows(found))}, as_json)
    papers_say(["alignment"], as_json)
    keep(opened, {"alignment": found}, save)
    draw(figures, kind, {f"alignment_{target}": partial(drawn.alignment, found, target=target) for target in analysis.TARGETS})


def alignment_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every target, block and gate."""
    return [
        {
            "target": str(target),
            "block": int(block),
            "gate": str(gate),
            "correlation": float(one["correlation"]),
            "interval": interval(one["correlation_low"], one["correlation_high"]),
            "another block's alpha": float(one["other_block"]),
            "p (other blocks)": float(one["p_other_block"]),
            "p (permutation)": float(one["p_permutation"]),
            "overlap": float(one["overlap"]),
            "chance": float(one["chance"]),
            "rank of alpha at the largest channel": float(one["alpha_rank"]),
        }
        for target in found["target"].to_numpy()
        for gate in found["gate"].to_numpy()
        for block in found["block"].to_numpy()
        for one in [found.sel(target=target, block=block, gate=gate)]
        if one["correlation"] == one["correlation"]
    ]


def attribute(
    run: RunPath,
    channels: Channels = None,
    stream: Stream = "image",
    margin: Annotated[float, typer.Option(help="A share surely below this is called negligible.")] = 0.05,
    save: Save = True,
    figures: Figures = None,
    kind: Format = "html",
    as_json: AsJson = False,
) -> None:
    """Timestep or text: variance of a channel's size, and of its alpha, split into timestep, prompt, seed."""
    from interp.analysis import attribution as analysis
    from interp.analysis import massive
    from interp.figures import causes as drawn

    opened = open_source(run)
    chosen = massive.channels_of(opened, channels, stream)
    results = {"attribution": analysis.decompose(opened, chosen, stream=stream, margin=margin)}
    if opened.plan.get("record", {}).get("gates"):
        for gate in (str(value) for value in opened.gates["gate"].to_numpy()):
            found = analysis.decompose(opened, chosen, stream=stream, quantity="alpha", gate=gate, margin=margin)
            results[f"attribution_alpha_{gate}"] = found
    show({found.attrs["quantity"]: (found, attribution_rows(found)) for found in results.values()}, as_json)
    papers_say(["attribution"], as_json)
    keep(opened, results, save)
    draw(figures, kind, {name: partial(drawn.attribution, found) for name, found in results.items()})


def attribution_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every block and channel."""
    rows = []
    for channel in found["channel"].to_numpy():
        for block in found["block"].to_numpy():
            one = found.sel(block=block, channel=channel)
            if not bool(one["share"].notnull().any()):
                continue
            shares = {str(term): float(one["share"].sel(term=term)) for term in found["term"].to_numpy()}
            time = one.sel(term="timestep")
            rows.append(
                {
                    "block": int(block),
                    "channel": int(channel),
                    **shares,
                    "timestep interval": interval(time["share_low"], time["share_high"]),
                    "any prompt": float(one["any_prompt"]),
                    "prompt interval": interval(one["any_prompt_low"], one["any_prompt_high"]),
                    "prompt negligible": bool(one["prompt_negligible"]),
                    "other channels' timestep": float(time["ordinary"]),
                }
            )
    return rows


def residual(
    run: RunPath,
    channels: Channels = None,
    stream: Stream = "image",
    save: Save = True,
    figures: Figures = None,
    kind: Format = "html",
    as_json: AsJson = False,
) -> None:
    """Who writes a channel: embedding, and alpha x branch of every block, summed exactly (trace with --record ...,branches)."""
    from interp.analysis import residual as analysis
    from interp.figures import causes as drawn

    opened = open_source(run)
    found = analysis.decompose(opened, channels, stream=stream)
    show({"residual": (found, residual_rows(found)), "birth and largest writer": (found, birth_rows(found))}, as_json)
    keep(opened, {"residual": found}, save)
    numbers = [int(channel) for channel in found["channel"].to_numpy()]
    draw(figures, kind, {f"residual_{channel}": partial(drawn.residual, found, channel=channel) for channel in numbers})


def residual_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every channel and writer, averaged over steps."""
    factors = found[["alpha", "branch", "ordinary"]].mean("step")
    return [
        {
            "channel": int(channel),
            "writer": str(writer),
            "contribution": float(one["over_steps"]),
            "interval": interval(one["over_steps_low"], one["over_steps_high"]),
            "alpha": float(parts["alpha"]),
            "branch": float(parts["branch"]),
            "other channels' |contribution|": float(parts["ordinary"]),
        }
        for channel in found["channel"].to_numpy()
        for writer in found["writer"].to_numpy()
        for one in [found.sel(channel=channel, writer=writer)]
        for parts in [factors.sel(channel=channel, writer=writer)]
    ]


def birth_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every channel: where it begins, and who writes most of it."""
    return [
        {
            "channel": int(channel),
            "born at block": int(one["birth"]),
            "written most by": str(one["largest_writer"].item()),
            "largest remainder (rounding)": float(one["remainder"].max()),
        }
        for channel in found["channel"].to_numpy()
        for one in [found.sel(channel=channel)]
    ]


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Stores to line up.")],
    labels: Annotated[str | None, typer.Option(help="Names of the runs, with commas. [default: their file names]")] = None,
    stream: Stream = "image",
    criterion: Annotated[str, typer.Option(help="As in `interp massive`.")] = "robust",
    figures: Figures = None,
    kind: Format = "html",
    as_json: AsJson = False,
) -> None:
    """Line up the same analyses of several runs: over checkpoints, sizes, models."""
    from interp.analysis import comparison as analysis
    from interp.figures import causes as drawn

    names = None if labels is None else [name.strip() for name in labels.split(",")]
    found = analysis.runs([open_source(path) for path in runs], names, stream=stream, criterion=criterion)
    show({"comparison": (found, comparison_rows(found))}, as_json)
    papers_say(["comparison"], as_json)
    draw(figures, kind, {"comparison": lambda: drawn.comparison(found)})


def comparison_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every run."""
    rows = []
    for run in found["run"].to_numpy():
        one = found.sel(run=run)
        best = one.isel(block=int(one["ratio"].fillna(-1).to_numpy().argmax()))
        rows.append(
            {
                "run": str(run),
                "channels": int(one["channels"]),
                "massive": str(one["massive"].item()),
                "largest ratio": float(best["ratio"]),
                "interval": interval(best["ratio_low"], best["ratio_high"]),
                "at block": int(best["block"]),
                "channel": int(best["largest"]),
                "second's ratio there": float(best["second"]),
                "trend with timestep": float(one["trend"]),
                "timestep share": float(one["timestep_share"]),
                "prompt share": float(one["prompt_share"]),
            }
        )
    return rows
