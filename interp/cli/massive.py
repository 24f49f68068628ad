"""`interp massive`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.console import say
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

    from interp.store.opened import Run


def massive(
    run: RunPath,
    criterion: Annotated[
        str, typer.Option(help="robust, ratio:10, top:8, top_signed:8, sun, energy:10 or two_sigma; the number is optional.")
    ] = "robust",
    stream: Stream = "image",
    channels: Channels = None,
    steps: Annotated[str | None, typer.Option(help='Steps to look at, such as "0,-1". [default: all]')] = None,
    k: Annotated[int, typer.Option(help="Channels of a set, for its stability.")] = 8,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples of the scores.")] = 500,
    save: Save = True,
    figures: Figures = None,
    kind: Format = "html",
    as_json: AsJson = False,
) -> None:
    """Which channels are massive, and their profile, trend, stability, energy and outliers."""
    from interp.analysis import energy, sources, stability, trend
    from interp.analysis import massive as analysis
    from interp.errors import InputError
    from interp.figures import massive as drawn
    from interp.plan import at_least

    opened = open_source(run)
    if opened.bundled:
        if steps is not None:
            raise InputError("steps cannot be chosen: the store keeps means over all of them (--record summary)")
        _at_a_glance(opened, criterion, stream, channels, save, as_json)
        return
    found = analysis.find(opened, criterion, steps=steps, resamples=at_least("resamples", resamples, 0))
    part = opened if steps is None else sources.choose(opened.stats, "step", steps, "steps")
    results: dict[str, xr.Dataset] = {"massive": found}
    sections: dict[str, Any] = {"massive": (found, found_rows(found))}
    try:
        chosen = analysis.channels_of(opened, channels, stream, found)
    except InputError as error:
        if channels is not None or "channels must be given" not in str(error):
            raise
        chosen = []
    if chosen:
        results["profile"] = analysis.profile(part, chosen, stream=stream)
        sections[f"profile of the {stream} stream"] = (results["profile"], profile_rows(results["profile"]))
    if chosen and part_steps(part) > 1:
        results["trend"] = trend.over_timesteps(part, chosen, stream=stream)
        sections["trend over timesteps"] = (results["trend"], trend_rows(results["trend"]))
    results["stability"] = stability.sets(part, k, stream=stream)
    results["energy"] = energy.shares(part, stream=stream)
    results["outliers"] = energy.outliers(part, stream=stream)
    sections[f"stability of the top {k}"] = (results["stability"], stability_rows(results["stability"]))
    sections["energy"] = (results["energy"], energy_rows(results["energy"]))
    sections["outliers"] = (results["outliers"], outlier_rows(results["outliers"]))
    made = {
        "spikes": lambda: drawn.spikes(found, block=-1 if stream == "image" else 0, stream=stream),
        "scores": lambda: drawn.scores(found, stream=stream),
        "stability": lambda: drawn.stability(results["stability"]),
        "energy": lambda: drawn.energy(results["energy"]),
        "outliers": lambda: drawn.outliers(results["outliers"]),
    }
    if "profile" in results:
        made["layers"] = lambda: drawn.layers(results["profile"])
    if "trend" in results:
        made["trend"] = lambda: drawn.trend(results["trend"])
    if opened.plan.get("record", {}).get("hidden") and stream in opened.hidden.children:
        made["surface"] = lambda: drawn.surface(energy.surface(opened, stream=stream))
        if chosen and opened.hidden[stream].sizes["channel"] == opened.stats.sizes["channel"]:
            results["token_norms"] = energy.token_norms(opened, chosen, stream=stream)
            sections["token norms"] = (results["token_norms"], norm_rows(results["token_norms"]))
            made["token_norms"] = lambda: drawn.token_norms(results["token_norms"])
    for result in results.values():
        result.attrs |= {**sources.facts_of(opened), "steps": steps or "all"}
    show(sections, as_json)
    papers_say(["massive", "trend", "energy"], as_json)
    keep(opened, results, save)
    draw(figures, kind, made)


def _at_a_glance(run: Run, criterion: str, stream: str, channels: str | None, save: bool, as_json: bool) -> None:
    """What a store of summaries alone can say: means over prompts, no intervals."""
    from interp.analysis import glance
    from interp.analysis import massive as analysis

    say("this store keeps summaries alone: no intervals, stability, energy or outliers")
    found = glance.massive(run, criterion)
    results: dict[str, xr.Dataset] = {"massive": found}
    sections: dict[str, Any] = {"massive": (found, found_rows(found))}
    named = found["channel"].to_numpy()[found["consensus"].sel(stream=stream).to_numpy()]
    if channels is not None or named.size:
        chosen = analysis.channels_of(run, channels, stream, found)
        results["profile"] = glance.profile(run, chosen, stream=stream)
        sections[f"profile of the {stream} stream"] = (results["profile"], profile_rows(results["profile"]))
    show(sections, as_json)
    keep(run, results, save)


def part_steps(part: Any) -> int:
    """Steps looked at."""
    return int((part.stats if hasattr(part, "stats") else part).sizes["step"])


def found_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every channel of a consensus."""
    rows = []
    for stream in found["stream"].to_numpy():
        here = found.sel(stream=stream)
        for channel in here["channel"].to_numpy()[here["consensus"].to_numpy()]:
            one = here.sel(channel=channel)
            block = int(one["score"].fillna(-1).to_numpy().argmax())
            best = one.isel(block=block)
            rows.append(
                {
                    "stream": str(stream),
                    "channel": int(channel),
                    "birth": int(one["birth"]),
                    "blocks": int(one["selected"].sum()),
                    "largest at": int(best["block"]),
                    "size": float(best["size"]),
                    "score": float(best["score"]),
                    "score interval": interval(best["score_low"], best["score_high"]),
                    "selected in resamples": float(best["frequency"]),
                    "runner-up's score": float(best["runner_up"]),
                }
            )
    return rows


def profile_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every block and channel."""
    return [
        {
            "block": int(block),
            "channel": int(channel),
            "size": float(one["size"]),
            "interval": interval(one["size_low"], one["size_high"]),
            "median channel": float(one["median"]),
            "largest other": float(one["largest_other"]),
            "smallest token / median channel": float(one["in_every_token"]),
        }
        for channel in found["channel"].to_numpy()
        for block in found["block"].to_numpy()
        for one in [found.sel(block=block, channel=channel)]
    ]


def trend_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every block and channel; spread is the mean over steps of the coefficient of variation over prompts."""
    return [
        {
            "block": int(block),
            "channel": int(channel),
            "first step": float(one["size"].isel(step=0)),
            "last step": float(one["size"].isel(step=-1)),
            "trend with timestep": float(one["trend"]),
            "interval": interval(one["trend_low"], one["trend_high"]),
            "spread over prompts": float(one["variation"].mean()),
            "its interval": interval(one["variation_low"].mean(), one["variation_high"].mean()),
            "other channels' trend": float(one["ordinary_trend"]),
            "other channels' spread": float(one["ordinary_variation"].mean()),
        }
        for channel in found["channel"].to_numpy()
        for block in found["block"].to_numpy()
        for one in [found.sel(block=block, channel=channel)]
    ]


def stability_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every block."""
    names = {
        "seeds": "same prompt, other seed",
        "prompts": "other prompt",
        "steps": "next step",
        "first_last": "first, last step",
    }
    return [
        {
            "block": int(block),
            **{label: float(one[name]) for name, label in names.items()},
            "other prompt's interval": interval(one["prompts_low"], one["prompts_high"]),
            "other seed's interval": interval(one["seeds_low"], one["seeds_high"]),
            "next block": float(one["blocks"]),
            "chance": float(one["chance"]),
        }
        for block in found["block"].to_numpy()
        for one in [found.sel(block=block)]
    ]


def energy_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every block."""
    return [
        {
            "block": int(block),
            **{f"top {k}": float(found["share"].sel(k=k, block=block)) for k in found["k"].to_numpy()},
            "top 8's interval": _top_interval(found, block),
            "Gini": float(found["gini"].sel(block=block)),
            "Gini of top 32": float(found["gini_top"].sel(block=block)),
        }
        for block in found["block"].to_numpy()
    ]


def _top_interval(found: xr.Dataset, block: Any) -> list[float] | None:
    """Of the share of the top 8, where there are as many channels."""
    if 8 not in found["k"].to_numpy():
        return None
    one = found.sel(block=block, k=8)
    return interval(one["share_low"], one["share_high"])


def outlier_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every block."""
    return [
        {
            "block": int(block),
            "largest |x|": float(one["largest"].max()),
            "in channel": int(one["channel"][int(one["largest"].fillna(-1).to_numpy().argmax())]),
            "over the median channel's": float(one["dynamic_range"]),
            "after smoothing": float(one["smoothed_range"]),
            "drift over steps": float(one["over_steps"].max()),
        }
        for block in found["block"].to_numpy()
        for one in [found.sel(block=block)]
        if bool(one["largest"].notnull().any())
    ]


def norm_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every block, averaged over steps."""
    return [
        {
            "block": int(block),
            "high-norm tokens": float(one["high"]),
            "without the channels": float(one["high_excised"]),
            "without random ones": float(one["random_excised"]),
            "correlation of norms": float(one["correlation"]),
        }
        for block in found["block"].to_numpy()
        for one in [found[["high", "high_excised", "random_excised", "correlation"]].sel(block=block).mean("step")]
    ]
