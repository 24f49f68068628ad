"""Few Channels' disruption probe (arXiv 2605.13974): the k largest channels of every block zeroed in all of them, beside the k
lowest and k random ones, for growing k.

Every block has its own ranking, by the size of the channel's mean over image tokens. The paper's words ("absolute channel
mean") can be read as mean |x| or as |mean x|, which rank channels of mixed signs differently: `by` takes either. The paper
says neither k for each model, nor steps, nor whether blocks are zeroed one by one: here all blocks and steps at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interp.analysis import collapse as analysis
from interp.analysis import sources
from interp.errors import InputError
from interp.executor import HERE, Executor, Stopped
from interp.experiments.choose import ranked_run
from interp.experiments.draw import BATCH_SIZE, Arm, OnProgress, cost, draw
from interp.interventions.edits import Zero
from interp.plan import Record, as_json, at_least
from interp.store.experiment import Experiment
from interp.store.opened import Run
from interp.store.places import located
from interp.store.results import write_result
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

ORIGINAL = "original"
BY = ("mean_abs", "abs_mean")
COUNTS = (1, 2, 4, 8, 12, 24)  # as far as half of the channels go


@dataclasses.dataclass(frozen=True)
class Collapse:
    """A probe that is ready to be drawn."""

    prepared: Prepared
    out: Path
    arms: tuple[Arm, ...]
    parameters: dict[str, Any]

    @property
    def cost(self) -> dict[str, float]:
        """Pictures, and forwards of one row."""
        return cost(self.prepared, self.arms)

    def run(
        self,
        *,
        reference: Any = None,
        batch_size: int = BATCH_SIZE,
        through: Executor = HERE,
        on_progress: OnProgress = lambda progress: None,
        stopped: Stopped = lambda: False,
    ) -> Experiment:
        """Draw what is missing, measure, and keep the result `collapse` in the store."""
        drawn = draw(
            self.prepared,
            self.arms,
            experiment="collapse",
            parameters=self.parameters,
            out=self.out,
            batch_size=batch_size,
            through=through,
            on_progress=on_progress,
            stopped=stopped,
        )
        write_result(drawn.path, "collapse", analysis.curve(drawn, reference))
        return drawn


def collapse(
    model: Model | str | Path,
    prompts: Sequence[str] | str | Path,
    *,
    out: str | Path,
    counts: Sequence[int] | None = None,
    by: str = "mean_abs",
    run: Run | str | Path | None = None,
    batch_size: int = BATCH_SIZE,
    **arguments: Any,
) -> Collapse:
    """Prepare the probe: `collapse(...).run()` draws it.

    `counts` are the ks. Blocks are ranked by `run`; without one, the first prompts are traced. `arguments` are those of
    `interp.trace`: steps, seed, repeats, height, width, settings.
    """
    prepared = prepare(model, prompts, record=Record(stats=False, gates=False), **arguments)
    path, channels = located(out), prepared.model.anatomy.channels
    if by not in BY:
        raise InputError(f"by must be one of {', '.join(BY)}; got {by!r}")
    wanted = [k for k in COUNTS if k <= channels // 2] if counts is None else sorted({at_least("counts", k, 1) for k in counts})
    if not wanted or wanted[-1] > channels // 2:
        raise InputError(f"counts must lie in 1..{channels // 2}: the lowest must not be the top ones; got {counts}")
    opened = ranked_run(prepared, path, run=run, batch_size=batch_size)
    orders = block_orders(opened, by)
    arms = [Arm(ORIGINAL, (), {"kind": ORIGINAL, "k": 0, "blocks": "-", "stream": "image"})]
    for k in wanted:
        for kind in analysis.KINDS:
            edits = tuple(Zero(channels=_chosen(order, kind, k, block), blocks=[block]) for block, order in orders.items())
            arms.append(Arm(f"{kind} {k}", edits, {"kind": kind, "k": k, "blocks": "all", "stream": "image"}))
    parameters = {
        "counts": wanted,
        "by": by,
        "ranked_by": f"{opened.path.name}: {opened.rows_done} prompts, each block by itself",
        "channels": {str(block): [int(c) for c in order[: wanted[-1]]] for block, order in orders.items()},
    }
    return Collapse(prepared, path, tuple(arms), as_json(parameters, "parameters"))


def block_orders(run: Run, by: str) -> dict[int, list[int]]:
    """Every block's channels, the largest first: by mean |x| over tokens, or by |mean x|, averaged over steps and prompts."""
    here = sources.statistics(run)["mean_abs" if by == "mean_abs" else "mean"].sel(stream="image")
    size = sources.over_steps(here if by == "mean_abs" else abs(here)).mean("prompt").transpose("block", "channel")
    order = np.argsort(-size.to_numpy(), axis=1, kind="stable")
    return {int(block): [int(c) for c in row] for block, row in zip(size["block"].to_numpy(), order, strict=True)}


def _chosen(order: Sequence[int], kind: str, k: int, block: int) -> list[int]:
    """Channels of a kind; random ones are drawn for every block anew, out of all but the top ones."""
    if kind == "random":
        return sorted(int(c) for c in np.random.default_rng([k, block]).choice(order[k:], k, replace=False))
    return sorted(order[:k] if kind == "top" else order[-k:])
