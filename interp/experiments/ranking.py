"""Which channels an experiment edits, and which ones it compares them with."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from interp.analysis import massive, sources
from interp.base.errors import InputError, InterpWarning
from interp.base.plan import same_weights
from interp.base.sites import resolve_indices
from interp.runs.run import trace
from interp.store.traced_run import Run, open_run
from interp.tracing.prepare import Prepared

ROWS = 8  # prompts traced to choose channels, where no run is given


@dataclasses.dataclass(frozen=True)
class Ranked:
    """A stream's channels."""

    massive: tuple[int, ...]
    """Those given, or the run's massive ones."""
    order: tuple[int, ...]
    """All of them, by mean |x| over tokens, steps, prompts and blocks: the largest first."""
    source: str
    """Where this is from, in words."""

    @property
    def ordinary(self) -> tuple[int, ...]:
        """All but the massive ones, largest first."""
        return tuple(channel for channel in self.order if channel not in self.massive)

    @property
    def lowest(self) -> tuple[int, ...]:
        """As many channels as are massive, of the smallest."""
        return tuple(sorted(self.ordinary[-len(self.massive) :]))

    def random(self, seed: int, count: int | None = None) -> tuple[int, ...]:
        """As many ordinary channels, or `count`, drawn from a seed."""
        wanted = len(self.massive) if count is None else count
        if wanted > len(self.ordinary):
            raise InputError(f"channels: {wanted} random ordinary ones were asked for; there are {len(self.ordinary)}")
        drawn = np.random.default_rng(seed).choice(self.ordinary, wanted, replace=False)
        return tuple(sorted(int(channel) for channel in drawn))


def rank(
    prepared: Prepared,
    out: Path,
    *,
    channels: Sequence[int] | str | None = None,
    run: Run | str | Path | None = None,
    stream: str = "image",
    batch_size: int = 1,
) -> Ranked:
    """Rank a stream's channels by a traced run; without one, the first prompts are traced into NAME-channels.zarr."""
    opened = ranked_run(prepared, out, run=run, batch_size=batch_size)
    chosen = massive.channels_of(opened, channels, stream)
    size = sources.over_steps(sources.statistics(opened)["mean_abs"].sel(stream=stream)).mean(["prompt", "block"])
    if size.sizes["channel"] != prepared.model.anatomy.channels:
        has, needs = size.sizes["channel"], prepared.model.anatomy.channels
        raise InputError(f"run: {opened.path} has {has} channels, {prepared.model.name} has {needs}; trace this model")
    resolve_indices(chosen, prepared.model.anatomy.channels, "channels")
    order = tuple(int(channel) for channel in np.argsort(-size.to_numpy(), kind="stable"))
    return Ranked(tuple(chosen), order, f"{opened.path.name}: {opened.rows_done} prompts")


def ranked_run(prepared: Prepared, out: Path, *, run: Run | str | Path | None = None, batch_size: int = 1) -> Run:
    """The traced run that channels are ranked by: the one given, or the first prompts traced into NAME-channels.zarr."""
    if run is None:
        plan = prepared.plan
        run = trace(
            prepared.model,
            plan.prompts[:ROWS],
            out=out.with_name(f"{out.name.removesuffix('.zarr')}-channels.zarr"),
            steps=plan.steps,
            seed=plan.seed,
            height=plan.height,
            width=plan.width,
            settings=dict(plan.settings),
            batch_size=batch_size,
        )
    opened = run if isinstance(run, Run) else open_run(run)
    if "weights" in opened.plan and not same_weights(prepared.plan.to_json(), opened.plan):
        warnings.warn(
            f"run {opened.path} was traced with other weights than {prepared.model.name} has", InterpWarning, stacklevel=4
        )
    return opened
