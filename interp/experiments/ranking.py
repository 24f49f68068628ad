"""The channels that an experiment edits, and their control channels."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interp.analysis import massive, sources
from interp.base.errors import InputError, InterpWarning
from interp.base.same_plan import same_weights
from interp.base.sites import resolve_indices
from interp.base.streams import GENERATED
from interp.runs.run import trace
from interp.store.traced_run import Run, open_run
from interp.tracing.prepare import Prepared

ROWS = 8  # prompts that are traced to choose channels if no run is given


@dataclasses.dataclass(frozen=True)
class Ranked:
    """A stream's channels, ranked by size."""

    massive: tuple[int, ...]
    """The channels given by the user, or the run's massive channels."""
    order: tuple[int, ...]
    """All channels by mean |x| over tokens, steps, prompts and blocks, largest first."""
    source: str
    """The run that ranked them, as text."""

    @property
    def ordinary(self) -> tuple[int, ...]:
        """All but the massive ones, largest first."""
        return tuple(channel for channel in self.order if channel not in self.massive)

    @property
    def lowest(self) -> tuple[int, ...]:
        """The smallest channels, as many as the massive ones."""
        return tuple(sorted(self.ordinary[-len(self.massive) :]))

    def group(self, name: str, seed: int) -> tuple[int, ...]:
        """The channels of a group: massive, lowest or random."""
        return self.random(seed) if name == "random" else {"massive": self.massive, "lowest": self.lowest}[name]

    def random(self, seed: int, count: int | None = None) -> tuple[int, ...]:
        """`count` random ordinary channels; by default as many as the massive ones."""
        wanted = len(self.massive) if count is None else count
        if wanted > len(self.ordinary):
            raise InputError(f"channels: at most {len(self.ordinary)} random ordinary ones can be drawn; got {wanted}")
        return draw_channels(self.ordinary, wanted, seed)


def draw_channels(among: Any, count: int, seed: int | list[int]) -> tuple[int, ...]:
    """`count` different channels out of a sequence, drawn at random with a seed, in ascending order."""
    drawn = np.random.default_rng(seed).choice(among, count, replace=False)
    return tuple(sorted(int(channel) for channel in drawn))


def pick(order: Sequence[int], kind: str, count: int, seed: int) -> tuple[int, ...]:
    """`count` channels of a ranking (largest first): the largest ones, or those of a control.

    `kind` is "lowest" for the smallest ones, "random" for random ones out of all but the `count` largest; all other names
    stand for the largest.
    """
    if kind == "random":
        return draw_channels(order[count:], count, [count, seed])
    return tuple(sorted(order[-count:] if kind == "lowest" else order[:count]))


def rank(
    prepared: Prepared,
    out: Path,
    *,
    channels: Sequence[int] | str | None = None,
    run: Run | str | Path | None = None,
    stream: str = GENERATED,
    batch_size: int = 1,
) -> Ranked:
    """Rank a stream's channels by a traced run; see `ranked_run`."""
    ranking = ranked_run(prepared, out, run=run, batch_size=batch_size)
    chosen, needs = massive.channels_of(ranking, channels, stream), prepared.model.anatomy.stream(stream).width
    size = sources.over_steps(sources.statistics(ranking, stream)["mean_abs"]).mean(["prompt", "block"])
    has = size.sizes["channel"]
    if has != needs:
        raise InputError(f"run: {ranking.path} has {has} channels, {prepared.model.name} has {needs}; trace this model")
    resolve_indices(chosen, needs, "channels")
    order = tuple(int(channel) for channel in np.argsort(-size.to_numpy(), kind="stable"))
    return Ranked(tuple(chosen), order, f"{ranking.path.name}: {ranking.rows_done} prompts")


def opened(run: Run | str | Path) -> Run:
    """The run, opened if it is a path."""
    return run if isinstance(run, Run) else open_run(run)


def ranked_run(prepared: Prepared, out: Path, *, run: Run | str | Path | None = None, batch_size: int = 1) -> Run:
    """The run that ranks channels: `run`, or a trace of the first `ROWS` prompts in NAME-channels.zarr."""
    if run is None:
        plan = prepared.plan
        run = trace(
            prepared.model,
            plan.prompts[:ROWS],
            out=out.with_name(f"{out.name.removesuffix('.zarr')}-channels.zarr"),
            steps=plan.steps,
            seed=plan.seed,
            seeds=plan.seeds,
            height=plan.height,
            width=plan.width,
            settings=dict(plan.settings),
            batch_size=batch_size,
        )
    found = opened(run)
    if "weights" in found.plan and not same_weights(prepared.plan.to_json(), found.plan):
        warnings.warn(
            f"run {found.path} was traced with other weights than {prepared.model.name} has", InterpWarning, stacklevel=4
        )
    return found
