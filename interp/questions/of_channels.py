"""The question massive: its options, results, tables and figures."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp import analysis, figures
from interp.analysis.table import table
from interp.base.errors import InputError
from interp.base.options import Channels, OneStream
from interp.base.site_recorder import at_least
from interp.base.streams import GENERATED
from interp.questions.question import Draw, Question, Results

if TYPE_CHECKING:
    import xarray as xr

    from interp.store.traced_run import Run


@dataclasses.dataclass(frozen=True)
class Massive:
    """The criterion, and the part of the run."""

    criterion: Annotated[
        str, Doc("robust, ratio:10, top:8, top_signed:8, sun, energy:10 or two_sigma; the number is optional.")
    ] = "robust"
    stream: OneStream = GENERATED
    channels: Channels = None
    steps: Annotated[str | None, Doc('Steps to use, such as "0,-1". [default: all]')] = None
    k: Annotated[int, Doc("Number of top channels whose stability is measured.")] = 8
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
    """Results of a store of summaries: means over samples, no intervals."""
    if asked.steps is not None:
        raise InputError("steps cannot be chosen: the store keeps means over all of them (--record summary)")
    found = analysis.glance.massive(run, asked.criterion)
    chosen = _chosen(run, asked, found)
    return {"massive": found, **({"profile": analysis.glance.profile(run, chosen, stream=asked.stream)} if chosen else {})}


def _chosen(run: Run, asked: Massive, found: xr.Dataset) -> list[int]:
    """The given channels, else the consensus; none if no channel is massive."""
    analysis.sources.check_stream(found, asked.stream)
    if asked.channels is None and not found["consensus"].sel(stream=asked.stream).any():
        return []
    return analysis.massive.channels_of(run, asked.channels, asked.stream, found)


def _has_states(run: Run, stream: str) -> bool:
    return bool(run.plan.get("record", {}).get("hidden")) and stream in run.hidden.children


def _at_largest(found: xr.Dataset) -> xr.Dataset:
    """Every channel at the block of its largest score; the number of blocks that select it, and what it is."""
    import numpy as np

    largest, tokens = found["score"].fillna(-1).argmax("block"), found["tokens"].mean("block")
    everywhere, in_some = found["consensus"], found["massive_tokens"]
    both = everywhere & (in_some | (tokens < analysis.massive.SPARSE))
    names = np.select([both, everywhere, in_some], ["both", "channel", "tokens"], "some steps")
    birth = found["birth"].where(found["birth"] >= 0)
    counted = found.assign(blocks=found["selected"].sum("block"), tokens=tokens, birth=birth, kind=(everywhere.dims, names))
    return counted.assign(listed=everywhere | in_some | (found["steps"] != "")).isel(block=largest)


def _ends_and_means(found: xr.Dataset) -> xr.Dataset:
    """The sizes at the first and the last step, and means over steps of the spread over prompts."""
    names = ("variation", "variation_low", "variation_high", "ordinary_variation")
    ends = {"first": found["size"].isel(step=0), "last": found["size"].isel(step=-1)}
    return found.assign(ends | {name: found[name].mean("step") for name in names})


def _with_top(found: xr.Dataset) -> xr.Dataset:
    """The interval of the top 8's share; NaN with fewer channels."""
    top = found[["share_low", "share_high"]].reindex(k=[8]).isel(k=0, drop=True)
    return found.assign(top_low=top["share_low"], top_high=top["share_high"])


def _over_channels(found: xr.Dataset) -> xr.Dataset:
    """The largest channel of every block, and the largest drift."""
    largest = found["largest"]
    return found.assign(
        largest=largest.max("channel"),
        in_channel=found["channel"][largest.fillna(-1).argmax("channel")],
        over_steps=found["over_steps"].max("channel"),
    )


def _mean_norms(found: xr.Dataset) -> xr.Dataset:
    return found[["high", "high_excised", "random_excised", "correlation"]].mean("step")


def massive_figures(run: Run, results: Results, asked: Massive) -> dict[str, Draw]:
    """A figure for every result, and the surface of activations where states are kept; none for a store of summaries."""
    if run.bundled:
        return {}
    stream, drawn = asked.stream, figures.channels
    found: dict[str, Draw] = {
        "spikes": partial(drawn.spikes, results["massive"], block=-1 if stream == GENERATED else 0, stream=stream),
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
    "Find massive channels, and their profile, trend, stability, energy and outliers.",
    Massive,
    massive_results,
    {
        "massive": ("massive", table("massive", _at_largest)),
        "profile of the {stream} stream": ("profile", table("profile")),
        "trend over timesteps": ("trend", table("trend", _ends_and_means)),
        "stability of the top {k}": ("stability", table("stability")),
        "energy": ("energy", table("energy", _with_top)),
        "outliers": ("outliers", table("outliers", _over_channels)),
        "token norms": ("token_norms", table("token_norms", _mean_norms)),
    },
    massive_figures,
    ("massive", "trend", "energy"),
)
