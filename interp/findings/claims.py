"""A paper's claim, the rule that judges it, the evidence, and the verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from interp.analysis import (
    alignment,
    attribution,
    dependence,
    energy,
    massive,
    residual,
    segmentation,
    sources,
    stability,
    trend,
)
from interp.analysis.result import Estimate
from interp.evaluation.scorer import Scorer
from interp.findings.setup import Setup, channels_of
from interp.findings.stages import STAGES, crossed_run, other_name
from interp.store.experiment import Experiment, is_experiment, open_experiment
from interp.store.saved_results import read_dataset
from interp.store.schema import Array
from interp.store.traced_run import Run, open_run

HOLDS, FAILS, PARTLY, UNKNOWN = "holds", "does not hold", "in part", "cannot tell"
MEASURED = "measured: no paper claims it"
DEPENDS = 0.1  # share of the distance between two prompts' pictures
PROMPT = ("semantics", "texture", "clip_score", "blip_itm", "blip_cosine")  # measures of the prompt
POWER = 1 + float(stats.norm.ppf(0.8) / stats.norm.ppf(0.975))
K = 12  # channels of a segmentation, or a quarter


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The verdict on a claim, and its numbers."""

    said: str
    here: str
    """What was measured, in one or two sentences."""
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    seen: str = ""
    """The smallest effects that would have been seen (`would_see`)."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement of a paper, and the rule that judges it."""

    name: str
    claim: str
    source: str
    rule: str
    """When it holds and when it fails; otherwise the verdict is "in part" or "cannot tell", as stated."""
    needs: tuple[str, ...]
    """Stages whose results it reads."""
    judge: Callable[[Evidence], Verdict]
    requires: tuple[str, ...] = ()
    """What it is about, without which it cannot be judged: massive channels, pictures of their prompts (`Evidence.lacks`)."""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """A campaign's results so far, read from its stores when a rule needs them."""

    setup: Setup
    scorers: tuple[Scorer, ...]

    def path(self, stage: str) -> Path:
        """A stage's store."""
        return next(one for one in STAGES if one.name == stage).path(self.setup)

    def experiment(self, stage: str) -> Experiment:
        """The store of a stage that draws pictures."""
        return open_experiment(self.path(stage))

    def dataset(self, stage: str) -> xr.Dataset:
        """The result of a stage with a single one."""
        path = self.path(stage)
        return open_experiment(path).result(stage) if is_experiment(path) else read_dataset(path)

    @cached_property
    def crossed(self) -> Run:
        """The trace of prompts x seeds."""
        return crossed_run(self.setup)

    @cached_property
    def channels(self) -> list[int]:
        """The massive channels, or the largest one."""
        return channels_of(self.crossed)[0]

    @cached_property
    def any_massive(self) -> bool:
        """Whether any channel is massive by the criterion."""
        return channels_of(self.crossed)[1]

    def lacks(self, what: str) -> str:
        """Why a claim about massive channels, or about pictures of prompts, cannot be judged here; "" if it can."""
        if what == "massive":
            return "" if self.any_massive else f"no channel is massive; the largest is {self.channels[0]}."
        return self.unrelated

    @cached_property
    def unrelated(self) -> str:
        """Why the pictures are not of their prompts; "" if they are.

        By a measure of the prompt they must fit their own better than other prompts, by more than twice the interval, since
        several measures are asked; without such a measure, they must depend on their prompts.
        """
        if self.fits:
            if any(2 * float(one.low) > float(one.value) for one in self.fits.values()):
                return ""
            said = "; ".join(
                f"{name} {float(one.value):.2g} [at least {float(one.low):.2g}]" for name, one in self.fits.items()
            )
            return f"the pictures are not shown to fit their own prompts better than other prompts: {said}."
        low, value = self.dependence
        if not np.isfinite(low):
            return "whether the pictures are of their prompts is unknown: give two repeats or more, and more prompts."
        if low > DEPENDS:
            return ""
        return (
            f"the pictures do not depend on their prompts: {value:.2g} [at least {low:.2g}] of the difference between two "
            f"prompts' pictures; less than {DEPENDS:g} is no picture of anything."
        )

    @cached_property
    def fits(self) -> dict[str, Estimate]:
        """Every measure of the prompt, given the picture's own prompt, less the same given the next prompt."""
        outputs = self.crossed.images
        units, images = sources.units(outputs), outputs["image"].to_numpy()
        texts, different = list(units.texts), list(dict.fromkeys(units.texts))
        others = [different[(different.index(text) + 1) % len(different)] for text in texts]
        found: dict[str, Estimate] = {}
        for scorer in self.scorers:
            names = [m.name for m in scorer.measures if m.of == "picture" and m.name.split(" (")[0] in PROMPT]
            own, other = (scorer.pictures(images, prompts) for prompts in (texts, others)) if names else ({}, {})
            found |= {name: Estimate.mean(own[name] - other[name], units) for name in names}
        return {name: one for name, one in found.items() if np.isfinite(one.value)}  # prompts may not ask for it

    @cached_property
    def dependence(self) -> tuple[float, float]:
        """Lower bound and value of `interp.analysis.dependence.on_prompt` of the traced pictures."""
        outputs = self.crossed.images
        found = dependence.on_prompt(outputs["image"].to_numpy(), sources.units(outputs))
        return float(found.low), float(found.value)

    @cached_property
    def massive(self) -> xr.Dataset:
        """`interp.massive.find`, image stream."""
        return massive.find(self.crossed).isel(stream=0)

    def born(self, found: xr.Dataset) -> xr.Dataset:
        """A result's (block, channel) values, NaN in the blocks before the one where a channel is first massive."""
        if not self.any_massive:
            return found
        birth = self.massive["birth"].sel(channel=self.channels)
        there = found["block"] >= birth
        parts = {
            n: v.where(there) for n, v in found.data_vars.items() if {"block", "channel"} <= set(v.dims) and v.dtype.kind == "f"
        }
        return found.assign(parts)

    profile = cached_property(lambda self: self.born(massive.profile(self.crossed, self.channels)))
    """Sizes over blocks."""
    trend = cached_property(lambda self: self.born(trend.over_timesteps(self.crossed, self.channels)))
    """Sizes over timesteps."""
    attribution = cached_property(lambda self: self.born(attribution.decompose(self.crossed, self.channels)))
    """Timestep, prompt, seed."""
    alignment = cached_property(lambda self: alignment.compare(self.crossed))
    """Alpha against activation."""
    residual = cached_property(lambda self: residual.decompose(self.crossed, self.channels))
    """Contributions of each writer."""
    energy = cached_property(lambda self: energy.shares(self.crossed))
    """Shares of energy."""
    stability = cached_property(lambda self: stability.sets(self.crossed))
    """Overlap of top sets."""

    @cached_property
    def segmentation(self) -> xr.Dataset | None:
        """Clusters against the true masks, if given."""
        masks = self.setup.masks
        if masks is None:
            return None
        run = open_run(self.path("states"))
        texts = list(self.setup.prompts.texts)
        truth = np.stack([masks[texts.index(text)] for text in run.prompts])
        return segmentation.score(run, truth, k=min(K, run.stats.sizes["channel"] // 4))

    @cached_property
    def others(self) -> list[Run]:
        """Traces of other checkpoints or sizes."""
        return [open_run(self.setup.folder / f"{other_name(n)}.zarr") for n in range(len(self.setup.others))]


def span(values: Any) -> str:
    """Format the smallest and largest of some numbers."""
    array = np.asarray(values, float)
    array = array[np.isfinite(array)]
    if not array.size:
        return "nothing"
    low, high = float(array.min()), float(array.max())
    return f"{low:.3g}" if np.isclose(low, high) else f"{low:.3g} to {high:.3g}"


def within(found: xr.Dataset, name: str = "") -> str:
    """A single estimate with its interval: the variables NAME, NAME_low and NAME_high, by default value, low and high."""
    low, high = (f"{name}_low", f"{name}_high") if name else ("low", "high")
    return f"{float(found[name or 'value']):.3g} [{float(found[low]):.3g}, {float(found[high]):.3g}]"


def would_see(low: Any, high: Any) -> str:
    """The effect that an interval of this width would have shown in four of five repetitions, 1.43 times its half: normal 95%
    and 80% quantiles. The largest of several places.
    """
    half = np.nanmax((np.asarray(high, float) - np.asarray(low, float)) / 2, initial=0.0)
    return f"{POWER * half:.2g}" if half > 0 else ""


def by_all(good: Array, bad: Array, here: str, seen: str = "", **numbers: Any) -> Verdict:
    """Holds if all are good, fails if all are bad, in part if some are each; otherwise, and without values, cannot tell."""
    if not len(good):
        return Verdict(UNKNOWN, here)
    if good.all() or bad.all():
        return Verdict(HOLDS if good.all() else FAILS, here, numbers, seen)
    return Verdict(PARTLY if good.any() and bad.any() else UNKNOWN, here, numbers, seen)


def finite(*arrays: Any) -> list[Array]:
    """The arrays' values at positions where all are finite."""
    flat = [np.asarray(array, float).ravel() for array in arrays]
    kept = np.all([np.isfinite(array) for array in flat], axis=0)
    return [array[kept] for array in flat]
