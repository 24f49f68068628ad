"""At a glance: what a store's summary alone can say. Small enough for memory at once, exact, and without intervals.

The summary holds mean and variance over rows of every statistic and of alpha; that is all that a page needs to open. Intervals
need the rows themselves: `massive.find`, `attribution.decompose` and the others read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import criteria, sources
from interp.analysis import massive as rows
from interp.base.errors import InputError, StoreError
from interp.store.traced_run import Run

CRITERIA = ("robust", "ratio", "top", "energy")
NO_INTERVAL = "none: from the summary over rows"


def statistics(run: Run) -> xr.Dataset:
    """mean, mean_abs, min_abs, var over tokens, means over rows: (prompt 1, step, block, stream, channel), lazy.

    `var` carries the variance of `mean` over rows, so that `criteria.energy_of` gives the mean energy exactly.
    """
    summary = _summary(run, "mean_abs")
    moments = summary[["mean", "mean_abs", "min_abs", "var"]]
    mean = moments.sel(moment="mean", drop=True)
    mean["var"] = mean["var"] + moments["mean"].sel(moment="variance", drop=True)
    return mean.expand_dims("prompt")


def massive(run: Run, criterion: str = "robust") -> xr.Dataset:
    """`massive.find` on the means over rows: the same scores and channels where every text has as many seeds; no intervals."""
    rule = criteria.parse(criterion)
    if rule.name not in CRITERIA:
        raise InputError(f"criterion must be one of {', '.join(CRITERIA)} at a glance; {rule.name} needs massive.find(run)")
    found = rows.find(statistics(run), rule, resamples=0)
    return found.assign_attrs({**_facts(run), "averaged_over": "tokens, steps, then rows"})


def profile(run: Run, channels: Sequence[int], *, stream: str = "image") -> xr.Dataset:
    """`massive.profile` on the means over rows; the bounds equal the values."""
    found = rows.profile(statistics(run), channels, stream=stream)
    return found.assign_attrs({**_facts(run), "averaged_over": "tokens, steps, then rows"})


def size(run: Run, channel: int, *, stream: str = "image", moment: str = "mean") -> xr.DataArray:
    """Mean |hidden| of one channel, mean (or variance) over rows: (step, block)."""
    summary = _summary(run, "mean_abs")
    here = _place(summary["mean_abs"].sel(moment=moment, drop=True), stream, channel)
    return here.transpose("step", "block").compute().assign_attrs(_facts(run), averaged_over="tokens, then rows")


def ratio(run: Run, channel: int, *, stream: str = "image") -> xr.DataArray:
    """Mean |hidden| of one channel over the median channel's: (step, block)."""
    sizes = _summary(run, "mean_abs")["mean_abs"].sel(moment="mean", drop=True)
    sizes = sizes.sel(stream=sources.check_stream(sizes, stream)).compute()
    here = sources.choose(sizes, "channel", [channel]).isel(channel=0, drop=True)
    found: xr.DataArray = (here / sizes.median("channel")).transpose("step", "block")
    return found.assign_attrs(_facts(run), averaged_over="tokens, then rows")


def channels(run: Run, *, block: int, step: int, stream: str = "image") -> xr.DataArray:
    """Mean |hidden| of every channel at one block and step, mean over rows: (channel)."""
    sizes = _summary(run, "mean_abs")["mean_abs"].sel(moment="mean", drop=True)
    sizes = sizes.sel(stream=sources.check_stream(sizes, stream))
    here: xr.DataArray = _at(_at(sizes, "block", block), "step", step).compute()
    return here.assign_attrs(_facts(run), averaged_over="tokens, then rows")


def variance(run: Run, wanted: Sequence[int], *, stream: str = "image") -> xr.Dataset:
    """A channel's variance over rows and steps, split by the law of total variance: exact of the rows at hand, no estimate.

    timestep, rest     (block, channel)   share of the variance over steps of the mean over rows; of that between rows at a step
                                          (prompts, seeds, interactions). The first is too large by at most rest / rows
    ordinary           (block)            the control: the median channel's timestep share
    """
    summary = _summary(run, "mean_abs")
    moments = (
        summary["mean_abs"].sel(stream=sources.check_stream(summary, stream)).transpose("moment", "step", "block", "channel")
    )
    if int(summary.attrs["rows"]) < 2 or moments.sizes["step"] < 2:
        raise InputError("prompts and steps: a split of the variance needs at least two rows and two steps")
    mean, between = moments.to_numpy()
    along, rest = mean.var(axis=0, dtype=np.float64), between.mean(axis=0, dtype=np.float64)
    total = along + rest
    share = xr.DataArray(
        np.divide(along, total, out=np.full(total.shape, np.nan), where=total > 0),
        {name: c for name, c in moments.coords.items() if set(c.dims) <= {"block", "channel"}},
        ("block", "channel"),
    )
    chosen = sources.choose(share, "channel", list(wanted), "channels")
    found = xr.Dataset({"timestep": chosen, "rest": 1 - chosen, "ordinary": share.median("channel")})
    return found.assign_attrs(_facts(run), control="ordinary: the median channel", averaged_over="tokens")


def alpha(run: Run, channel: int, *, stream: str = "image") -> xr.DataArray:
    """Alpha of one channel, mean over rows: (gate, step, block)."""
    gates = _summary(run, "alpha")["alpha"].sel(moment="mean", drop=True)
    here = _place(gates, stream, channel).transpose("gate", "step", "block").compute()
    kept = [place for place in range(here.sizes["gate"]) if bool(here.isel(gate=place).notnull().any())]
    return here.isel(gate=kept).assign_attrs(_facts(run), averaged_over="rows")


def alpha_and_size(run: Run, *, block: int, stream: str = "image") -> xr.Dataset:
    """Every channel's alpha beside its size at one block, means over rows and steps.

    alpha   (gate, channel)   |mean over rows of alpha|
    size    (channel)         mean |hidden|
    """
    summary = _summary(run, "alpha").sel(moment="mean", drop=True)
    here = _at(summary[["alpha", "mean_abs"]].sel(stream=sources.check_stream(summary, stream)), "block", block).compute()
    gates = [place for place in range(here.sizes["gate"]) if bool(here["alpha"].isel(gate=place).notnull().any())]
    found = xr.Dataset({"alpha": abs(here["alpha"]).mean("step").isel(gate=gates), "size": here["mean_abs"].mean("step")})
    return found.assign_attrs(_facts(run), averaged_over="rows, then steps")


def _summary(run: Run, variable: str) -> xr.Dataset:
    summary = run.summary
    if variable not in summary:
        what = "gates" if variable == "alpha" else "stats"
        raise StoreError(f"store {run.path} keeps no {what}; trace with --record stats,gates (a model without gates has none)")
    if not int(summary.attrs.get("rows", 0)):
        raise StoreError(f"no row of {run.path} is done yet, so there is nothing to look at; let its trace go on first")
    return summary


def _place(data: xr.DataArray, stream: str, channel: int) -> xr.DataArray:
    here: xr.DataArray = _at(data.sel(stream=sources.check_stream(data, stream)), "channel", channel)
    return here


def _at(data: Any, axis: str, value: int) -> Any:
    return sources.choose(data, axis, [value]).isel({axis: 0})


def _facts(run: Run) -> dict[str, Any]:
    return {**sources.facts_of(run), "interval": NO_INTERVAL}
