"""Compare analyses of several runs, such as training checkpoints, sizes or models. DG Figs. 3b, 3c."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import attribution, intervals, massive, sources, trend
from interp.analysis.result import Estimate
from interp.base.errors import InputError
from interp.base.streams import GENERATED
from interp.store.traced_run import Run


def runs(
    many: Sequence[Run], labels: Sequence[str] | None = None, *, stream: str = GENERATED, criterion: str = "robust"
) -> xr.Dataset:
    """The largest channel and the massive channels of each run.

    ratio, ratio_low, ratio_high   (run, block)   largest channel over the median one, by mean |x|; NaN beyond a run's blocks
    second                         (run, block)   the control: second largest channel over the median
    largest                        (run, block)   which channel that is; -1 beyond a run's blocks
    massive                        (run)          the consensus, as text
    trend, timestep_share, prompt_share  (run)    of the channel that is largest in most blocks, at its largest block
    depth                          (run, block)   block / (blocks - 1)
    """
    stream = sources.stream_of(many[0], stream)
    if len(many) < 2:
        raise InputError(f"runs must be two or more to be compared; got {len(many)}")
    names = list(labels) if labels is not None else [run.path.stem for run in many]
    if len(names) != len(many) or len(set(names)) != len(names):
        raise InputError(f"labels must be as many as runs ({len(many)}) and all different; got {', '.join(names)}")
    lines = [_line(run, stream, criterion) for run in many]
    joined = xr.concat(lines, "run", join="outer", fill_value={"largest": -1}, coords="minimal", compat="override")
    return joined.assign_coords(run=np.array(names, dtype=object)).assign_attrs(
        analysis="comparison",
        stream=stream,
        criterion=criterion,
        averaged_over="tokens, steps, then prompt texts",
        interval="; ".join(sorted({str(line.attrs["interval"]) for line in lines})),
        control="second: the second largest channel over the median",
        models=[str(run.plan.get("model")) for run in many],
    )


def _line(run: Run, stream: str, criterion: str) -> xr.Dataset:
    sizes = sources.over_steps(sources.statistics(run, stream)["mean_abs"]).transpose("prompt", "block", "channel")
    values, units = sizes.to_numpy(), sources.units(sizes)
    mean = intervals.mean_of_texts(values, units)
    median = np.median(mean, axis=-1)
    ratio = Estimate.of_mean(values, units, lambda means: means.max(axis=-1) / np.median(means, axis=-1), "ratio", rough=True)
    found = massive.find(run, criterion, resamples=0)
    agreed = found["channel"].to_numpy()[found["consensus"].sel(stream=stream).to_numpy()]
    blocks, channels = mean.shape
    variables: dict[str, Any] = {
        **ratio.variables("ratio", "block"),
        "second": ("block", np.sort(mean, axis=-1)[:, -2] / median),
        "largest": ("block", np.where(np.isnan(median), -1, mean.argmax(axis=-1))),
        "depth": ("block", np.arange(blocks) / max(blocks - 1, 1)),
        "massive": ", ".join(str(channel) for channel in agreed) or "none",
        "channels": channels,
        **_behaviour(run, stream, mean),
    }
    return xr.Dataset(variables, {"block": sizes["block"].to_numpy()}, {"interval": units.said("ratio")})


def _behaviour(run: Run, stream: str, mean: Any) -> dict[str, float]:
    """Trend and shares of the channel that is largest in most blocks, at its largest block; NaN if there is none."""
    present = ~np.isnan(mean).any(axis=-1)
    channel = int(np.bincount(mean[present].argmax(axis=-1)).argmax())
    block = int(np.nanargmax(mean[:, channel]))
    found = {"trend": np.nan, "timestep_share": np.nan, "prompt_share": np.nan}
    with contextlib.suppress(InputError):
        found["trend"] = float(trend.over_timesteps(run, [channel], stream=stream)["trend"].isel(block=block, channel=0))
        split = attribution.decompose(run, [channel], stream=stream).isel(block=block, channel=0)
        found["timestep_share"] = float(split["share"].sel(term="timestep"))
        found["prompt_share"] = float(split["any_prompt"])
    return found
