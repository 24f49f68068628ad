"""Analyses of a store's summary: exact, small enough for memory, and without intervals.

The summary holds mean and variance over rows of every statistic and of alpha. Intervals need the rows themselves, which
`massive.find`, `attribution.decompose` and the others read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import criteria, sources
from interp.analysis import massive as rows
from interp.base.errors import InputError, StoreError
from interp.base.streams import GENERATED
from interp.store.traced_run import Run

CRITERIA = ("robust", "ratio", "top", "energy")
NO_INTERVAL = "none: from the summary over rows"


def statistics(run: Run) -> xr.Dataset:
    """mean, mean_abs, min_abs, var over tokens, means over rows: (prompt 1, step, block, stream, channel), lazy.

    `var` carries the variance of `mean` over rows, so that `criteria.energy_of` gives the mean energy exactly.
    """
    moments = _summary(run, "mean_abs")[["mean", "mean_abs", "min_abs", "var"]]
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


def profile(run: Run, channels: Sequence[int], *, stream: str = GENERATED) -> xr.Dataset:
    """`massive.profile` on the means over rows; the bounds equal the values."""
    stream = sources.stream_of(run, stream)
    found = rows.profile(statistics(run), channels, stream=stream)
    return found.assign_attrs({**_facts(run), "averaged_over": "tokens, steps, then rows"})


def size(run: Run, channel: int, *, stream: str = GENERATED, moment: str = "mean") -> xr.DataArray:
    """Mean |hidden| of one channel, mean (or variance) over rows: (step, block)."""
    stream = sources.stream_of(run, stream)
    here = _moment(run, "mean_abs", stream, moment, channel=channel)
    return here.transpose("step", "block").assign_attrs(_facts(run), averaged_over="tokens, then rows")


def ratio(run: Run, channel: int, *, stream: str = GENERATED) -> xr.DataArray:
    """Mean |hidden| of one channel over the median channel's: (step, block)."""
    stream = sources.stream_of(run, stream)
    sizes = _moment(run, "mean_abs", stream)
    here = sources.at(sizes, channel=channel).drop_vars("channel")
    found: xr.DataArray = (here / sizes.median("channel")).transpose("step", "block")
    return found.assign_attrs(_facts(run), averaged_over="tokens, then rows")


def channels(run: Run, *, block: int, step: int, stream: str = GENERATED) -> xr.DataArray:
    """Mean |hidden| of every channel at one block and step, mean over rows: (channel)."""
    stream = sources.stream_of(run, stream)
    here = _moment(run, "mean_abs", stream, block=block, step=step)
    return here.assign_attrs(_facts(run), averaged_over="tokens, then rows")


def variance(run: Run, wanted: Sequence[int], *, stream: str = GENERATED) -> xr.Dataset:
    """A channel's variance over rows and steps, split by the law of total variance: exact for these rows, not an estimate.

    timestep, rest     (block, channel)   share of the variance over steps of the mean over rows; of that between rows at a step
                                          (prompts, seeds, interactions). The first is too large by at most rest / rows
    ordinary           (block)            the control: the median channel's timestep share
    """
    stream = sources.stream_of(run, stream)
    mean, between = (_moment(run, "mean_abs", stream, moment).astype(np.float64) for moment in ("mean", "variance"))
    if int(run.summary.attrs["rows"]) < 2 or mean.sizes["step"] < 2:
        raise InputError("prompts and steps: a split of the variance needs at least two rows and two steps")
    over_steps = mean.transpose("step", "block", "channel").var("step", skipna=False)
    total = over_steps + between.mean("step", skipna=False)
    share = over_steps / total.where(total > 0)
    chosen = sources.choose(share, "channel", list(wanted), "channels")
    found = xr.Dataset({"timestep": chosen, "rest": 1 - chosen, "ordinary": share.median("channel")})
    return found.assign_attrs(_facts(run), control="ordinary: the median channel", averaged_over="tokens")


def alpha(run: Run, channel: int, *, stream: str = GENERATED) -> xr.DataArray:
    """Alpha of one channel, mean over rows: (gate, step, block)."""
    stream = sources.stream_of(run, stream)
    present = _moment(run, "alpha", stream, channel=channel).dropna("gate", how="all")
    return present.transpose("gate", "step", "block").assign_attrs(_facts(run), averaged_over="rows")


def alpha_and_size(run: Run, *, block: int, stream: str = GENERATED) -> xr.Dataset:
    """Every channel's alpha and its size at one block, means over rows and steps.

    alpha   (gate, channel)   |mean over rows of alpha|
    size    (channel)         mean |hidden|
    """
    stream = sources.stream_of(run, stream)
    gates, sizes = (_moment(run, name, stream, block=block) for name in ("alpha", "mean_abs"))
    alphas = abs(gates.dropna("gate", how="all")).mean("step")
    return xr.Dataset({"alpha": alphas, "size": sizes.mean("step")}, attrs={**_facts(run), "averaged_over": "rows, then steps"})


def streams(run: Run) -> list[str]:
    """Streams that statistics were recorded of."""
    return [str(value) for value in _summary(run, "mean_abs")["stream"].to_numpy()]


def _summary(run: Run, variable: str) -> xr.Dataset:
    summary = run.summary
    if variable not in summary:
        what = "gates" if variable == "alpha" else "stats"
        raise StoreError(f"store {run.path} keeps no {what}; trace with --record stats,gates (a model without gates has none)")
    if not int(summary.attrs.get("rows", 0)):
        raise StoreError(f"no row of {run.path} is done yet, so there is nothing to analyse; resume its trace first")
    return summary


def _moment(run: Run, variable: str, stream: str, moment: str = "mean", **places: int) -> xr.DataArray:
    """Mean or variance over rows of a variable in one stream, at these places: in memory."""
    here = _summary(run, variable)[variable].sel(moment=moment, drop=True)
    return sources.at(here.sel(stream=sources.check_stream(here, stream)), **places).compute()


def _facts(run: Run) -> dict[str, Any]:
    return {**sources.facts_of(run), "interval": NO_INTERVAL}
