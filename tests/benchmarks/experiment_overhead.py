"""What an experiment costs over the bare forwards that it needs, side by side.

    python tests/benchmarks/experiment_overhead.py [--rounds 6] [--device cuda --dtype bfloat16]

A random SD3-shaped model (12 blocks, 512 channels, 256 image tokens). `bare` calls the transformer and the decoder as often,
and with as many rows, as the experiment's arms need when steps shared with the clean run are drawn once: no pipeline, no edit,
no store. The two take turns; reported are ratios within a round: median, and a bootstrap interval of it. Beside it, what is
left of the forwards that drawing every arm from its first step would take.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from trace_overhead import SHAPE

import interp
from interp.experiments.clean import clean_run
from interp.experiments.draw import Arm, _batches, cost, draw
from interp.interventions import Zero, ZeroNormsKept
from interp.models import autoencoder, tiny
from interp.models.load import adopt
from interp.models.quiet import quiet
from interp.plan import Record
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

STEPS, SIZE, BLOCKS = 10, 8, SHAPE["blocks"]


def disruption() -> list[Arm]:
    """One block, all steps: what `interp disrupt` does."""
    arms = [Arm("original")]
    arms += [Arm(f"zero {n}", (Zero(channels=[n], blocks=4),)) for n in range(4)]
    return [*arms, Arm("norms kept", (ZeroNormsKept(channels=[0], blocks=4),))]


def grid() -> list[Arm]:
    """Blocks x windows of steps: the shape of `interp patch`."""
    windows = np.array_split(np.arange(STEPS), 3)
    edits = [(b, s, Zero(channels=[3], blocks=b, steps=[int(i) for i in s])) for s in windows for b in (1, 7)]
    return [Arm("original"), *(Arm(f"{b} {s[0]}", (edit,)) for b, s, edit in edits)]


def experiment(prepared: Prepared, arms: Sequence[Arm]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        draw(prepared, arms, experiment="bench", parameters={}, out=Path(folder) / "e.zarr", batch_size=SIZE)


def bare(prepared: Prepared, arms: Sequence[Arm], arguments: dict[str, Any]) -> None:
    pipe, anatomy = prepared.model.pipe, prepared.model.anatomy
    latents = arguments[anatomy.row_inputs[0]]

    def forwards(rows: int) -> None:
        wide = {name: arguments[name].expand(rows, *arguments[name].shape[1:]) for name in anatomy.row_inputs}
        pipe.transformer(**{**arguments, **wide})

    def decode(rows: int) -> None:
        plan = prepared.plan
        autoencoder.decode(pipe, prepared.model.loaded.spec, latents.expand(rows, *latents.shape[1:]), plan.height, plan.width)

    with torch.no_grad(), quiet():
        for _ in range(STEPS):
            forwards(1)
        decode(1)
        for batch in _batches(arms, range(len(arms)), SIZE):
            starts = [place for number in batch if (place := arms[number].leaves) is not None]
            for step in range(STEPS):
                active = sum(place[0] < step for place in starts)
                forks = sorted((BLOCKS - block - part) / BLOCKS for begin, block, part in starts if begin == step)
                rows = active + (1 + round(sum(forks[:-1])) if forks else 0)  # the trunk, and the parts after forks
                if rows:
                    forwards(rows)
            if starts:
                decode(len(starts))


def seconds(work: Callable[[], None]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratio(values: list[float]) -> dict[str, float]:
    draw_ = np.random.default_rng(0)
    medians = [np.median(draw_.choice(values, len(values))) for _ in range(2000)]
    low, high = np.percentile(medians, [2.5, 97.5])
    return {"median": round(float(np.median(values)), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    with quiet():
        pipe, defaults = tiny.make("sd3", **SHAPE)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(given.device, getattr(torch, given.dtype))
    model = Model(adopt(pipe, "bench", defaults=defaults, device=given.device))
    prepared = prepare(model, ["a red cat"], steps=STEPS, record=Record(stats=False, gates=False))
    arguments = clean_run(prepared, prepared.plan.rows()[0]).calls.arguments[0]
    found: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "interp": interp.__file__ and "this checkout",
    }
    for name, arms in (("disruption", disruption()), ("patch grid", grid())):
        works = {
            "experiment": lambda arms=arms: experiment(prepared, arms),
            "bare": lambda arms=arms: bare(prepared, arms, arguments),
        }
        for work in works.values():
            work()
        rounds = []
        for number in range(given.rounds):
            order = list(works) if number % 2 else list(reversed(works))
            rounds.append({which: seconds(works[which]) for which in order})
        found[name] = {
            "experiment / bare": ratio([one["experiment"] / one["bare"] for one in rounds]),
            "forwards / all steps of all arms": round(
                cost(prepared, arms, batch_size=SIZE)["forwards"] / (STEPS * len(arms)), 3
            ),
            "seconds": round(float(np.median([one["experiment"] for one in rounds])), 2),
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
