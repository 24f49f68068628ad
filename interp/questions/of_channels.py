"""Which channels are massive? The question's options, results, tables and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp import analysis, figures
from interp.analysis.table import Along, Table, over_steps
from interp.base.errors import InputError
from interp.base.options import Channels, OneStream
from interp.base.plan import at_least
from interp.questions.question import Draw, Question, Results

if TYPE_CHECKING:
    import xarray as xr

    from interp.store.traced_run import Run


@dataclasses.dataclass(frozen=True)
class Massive:
    """How channels are scored, and of which part of the run."""

    criterion: Annotated[
        str, Doc("robust, ratio:10, top:8, top_signed:8, sun, energy:10 or two_sigma; the number is optional.")
    ] = "robust"
    stream: OneStream = "image"
    channels: Channels = None
    steps: Annotated[str | None, Doc('Steps to use, such as "0,-1". [default: all]')] = None
    k: Annotated[int, Doc("Channels of a set, for its stability.")] = 8
    resamples: Annotated[int, Doc("Bootstrap resamples of the scores.")] = 500


def massive_results(run: Run, asked: Massive) -> Results:
    """Channels by the criterion; their profile and trend; stability, energy, outliers; token norms where states are kept."""
    if run.bundled:
        return _at_a_glance(run, asked)
    found = analysis.massive.find(run, asked.criterion, steps=asked.steps, resamples=at_least("resamples", asked.resamples, 0))
    part: Any = run if asked.steps is None else analysis.sources.choose(run.stats, "step", asked.steps, "steps")
    chosen, stream = _chosen(run, asked, found), asked.stream
    results: Results = {"massive": found}
    if chosen:
        results["profile"] = analysis.massive.profile(part, chosen, stream=stream)
    if chosen and analysis.sources.statistics(part).sizes["step"] > 1:
        results["trend"] = analysis.trend.over_timesteps(part, chosen, stream=stream)
    results["stability"] = analysis.stability.sets(part, asked.k, stream=stream)
    results["energy"] = analysis.energy.shares(part, stream=stream)
    results["outliers"] = analysis.energy.outliers(part, stream=stream)
    if chosen and _has_states(run, stream) and run.hidden[stream].sizes["channel"] == run.stats.sizes["channel"]:
        results["token_norms"] = analysis.energy.token_norms(run, chosen, stream=stream)
    for result in results.values():
        result.attrs |= {**analysis.sources.facts_of(run), "steps": asked.steps or "all"}
    return results


def _at_a_glance(run: Run, asked: Massive) -> Results:
    """What a store of summaries alone can say: means over samples, no intervals."""
    if asked.steps is not None:
        raise InputError("steps cannot be chosen: the store keeps means over all of them (--record summary)")
    found = analysis.glance.massive(run, asked.criterion)
    chosen = _chosen(run, asked, found)
    return {"massive": found, **({"profile": analysis.glance.profile(run, chosen, stream=asked.stream)} if chosen else {})}


def _chosen(run: Run, asked: Massive, found: xr.Dataset) -> list[int]:
    """The channels asked for, else the consensus; none where no channel is massive."""
    analysis.sources.check_stream(found, asked.stream)
    if asked.channels is None and not found["consensus"].sel(stream=asked.stream).any():
        return []
    return analysis.massive.channels_of(run, asked.channels, asked.stream, found)


def _has_states(run: Run, stream: str) -> bool:
    return bool(run.plan.get("record", {}).get("hidden")) and stream in run.hidden.children


def _best(one: xr.Dataset) -> xr.Dataset:
    """The block of the largest score."""
    return one.isel(block=int(one["score"].fillna(-1).to_numpy().argmax()))


def _of_best(name: str, kind: type[Any] = float) -> Callable[[xr.Dataset], Any]:
    return lambda one: kind(_best(one)[name].item())


def _channel_of_largest(one: xr.Dataset) -> int:
    return int(one["channel"][int(one["largest"].fillna(-1).to_numpy().argmax())])


def _top_interval(one: xr.Dataset) -> list[float] | None:
    """Of the share of the top 8, where there are as many channels."""
    if 8 not in one["k"].to_numpy():
        return None
    return [float(one[f"share_{end}"].sel(k=8)) for end in ("low", "high")]


FOUND = Table(
    ("stream", "channel"),
    {
        "stream": "stream",
        "channel": "channel",
        "birth": "birth",
        "blocks": lambda one: int(one["selected"].sum()),
        "largest at": _of_best("block", int),
        "size": _of_best("size"),
        "score": _of_best("score"),
        "score interval": lambda one: [float(_best(one)[f"score_{end}"]) for end in ("low", "high")],
        "selected in resamples": _of_best("frequency"),
        "runner-up's score": _of_best("runner_up"),
    },
    keep=lambda one: one["consensus"],
)
PROFILE = Table(
    ("channel", "block"),
    {
        "block": "block",
        "channel": "channel",
        "size": "size",
        "interval": ("size_low", "size_high"),
        "median channel": "median",
        "largest other": "largest_other",
        "smallest token / median channel": "in_every_token",
    },
)
TREND = Table(
    ("channel", "block"),
    {
        "block": "block",
        "channel": "channel",
        "first step": lambda one: float(one["size"].isel(step=0)),
        "last step": lambda one: float(one["size"].isel(step=-1)),
        "trend with timestep": "trend",
        "interval": ("trend_low", "trend_high"),
        "spread over prompts": over_steps("variation"),
        "its interval": lambda one: [float(one[f"variation_{end}"].mean("step")) for end in ("low", "high")],
        "other channels' trend": "ordinary_trend",
        "other channels' spread": over_steps("ordinary_variation"),
    },
)
STABILITY = Table(
    ("block",),
    {
        "block": "block",
        "same prompt, other seed": "seeds",
        "other prompt": "prompts",
        "next step": "steps",
        "first, last step": "first_last",
        "other prompt's interval": ("prompts_low", "prompts_high"),
        "other seed's interval": ("seeds_low", "seeds_high"),
        "next block": "blocks",
        "chance": "chance",
    },
)
ENERGY = Table(
    ("block",),
    {
        "block": "block",
        "shares": Along("k", {"top {}": "share"}),
        "top 8's interval": _top_interval,
        "Gini": "gini",
        "Gini of top 32": "gini_top",
    },
)
OUTLIERS = Table(
    ("block",),
    {
        "block": "block",
        "largest |x|": lambda one: float(one["largest"].max()),
        "in channel": _channel_of_largest,
        "over the median channel's": "dynamic_range",
        "after smoothing": "smoothed_range",
        "drift over steps": lambda one: float(one["over_steps"].max()),
    },
    keep=lambda one: one["largest"].notnull().any(),
)
NORMS = Table(
    ("block",),
    {
        "block": "block",
        "high-norm tokens": over_steps("high"),
        "without the channels": over_steps("high_excised"),
        "without random ones": over_steps("random_excised"),
        "correlation of norms": over_steps("correlation"),
    },
)


TABLES = {
    "massive": ("massive", FOUND),
    "profile of the {stream} stream": ("profile", PROFILE),
    "trend over timesteps": ("trend", TREND),
    "stability of the top {k}": ("stability", STABILITY),
    "energy": ("energy", ENERGY),
    "outliers": ("outliers", OUTLIERS),
    "token norms": ("token_norms", NORMS),
}


def massive_figures(run: Run, results: Results, asked: Massive) -> dict[str, Draw]:
    """A figure for every result, and the surface of activations where states are kept; none of a store of summaries."""
    if run.bundled:
        return {}
    stream, drawn = asked.stream, figures.channels
    found: dict[str, Draw] = {
        "spikes": partial(drawn.spikes, results["massive"], block=-1 if stream == "image" else 0, stream=stream),
        "scores": partial(drawn.scores, results["massive"], stream=stream),
    }
    names = {"stability": "stability", "energy": "energy", "outliers": "outliers", "layers": "profile", "trend": "trend"}
    names |= {"token_norms": "token_norms"}
    found |= {name: partial(getattr(drawn, name), results[of]) for name, of in names.items() if of in results}
    if _has_states(run, stream):
        found["surface"] = lambda: drawn.surface(analysis.energy.surface(run, stream=stream))
    return found


MASSIVE = Question(
    "massive",
    "Which channels are massive, and their profile, trend, stability, energy and outliers.",
    Massive,
    massive_results,
    TABLES,
    massive_figures,
    ("massive", "trend", "energy"),
)
