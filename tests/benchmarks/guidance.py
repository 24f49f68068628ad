"""What guidance costs: counted FLOPs, time per step and peak memory, with and without the fork, beside plain and CFG.

    python tests/benchmarks/guidance.py [--rounds 6] [--device cuda --dtype bfloat16]

A random SD3-shaped model (12 blocks, 512 channels, 256 image tokens), Detail Guidance at block m = 3. Times are taken in turns;
reported are ratios within a round to the plain picture: median, and a bootstrap interval of it. FLOPs are counted by torch's
FlopCounterMode over the transformer's calls. Memory is the process's peak (or the card's).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
from typing import Any

import numpy as np
import torch
from experiment_overhead import ratio, seconds
from torch.utils.flop_counter import FlopCounterMode
from trace_overhead import SHAPE

from interp.experiments.clean import sample
from interp.guidance import ClassifierFree, DetailGuidance
from interp.models import tiny
from interp.models.load import adopt
from interp.models.quiet import quiet
from interp.plan import Record
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

BLOCK, STEPS = 3, 4
DETAIL = DetailGuidance(channels=[7], block=BLOCK, scale=1.0)
SETTINGS: dict[str, tuple[Any, bool]] = {
    "plain": (None, False),
    "CFG": (ClassifierFree(4), False),
    "DG": (DETAIL, False),
    "CFG+DG": (ClassifierFree(4) + DETAIL, False),
    "DG, no fork": (DETAIL, True),
    "CFG+DG, no fork": (ClassifierFree(4) + DETAIL, True),
}
BOUNDS = {
    "DG": 1 + (SHAPE["blocks"] - BLOCK - 1) / SHAPE["blocks"],
    "CFG+DG": 2 + (SHAPE["blocks"] - BLOCK - 1) / SHAPE["blocks"],
}


def build(device: str, dtype: str) -> Model:
    with quiet():
        pipe, defaults = tiny.make("sd3", **SHAPE)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(device, getattr(torch, dtype))
    return Model(adopt(pipe, "bench", defaults=defaults, device=device))


def picture(prepared: Prepared, sequential: bool) -> None:
    guide, row = prepared.guide(sequential=sequential), prepared.plan.rows()[0]
    if guide is None:
        sample(prepared, [row])
        return
    with guide.guiding(prepared.model.pipe.transformer):
        sample(prepared, [row])


def flops(prepared: Prepared, sequential: bool) -> float:
    transformer = prepared.model.pipe.transformer
    with FlopCounterMode(display=False) as counter:
        picture(prepared, sequential)
    name = next(key for key in counter.get_flop_counts() if key.endswith(type(transformer).__name__))
    return float(sum(counter.get_flop_counts()[name].values()))


def peak(name: str, device: str, dtype: str, queue: Any) -> None:
    model = build(device, dtype)
    guidance, sequential = SETTINGS[name]
    prepared = prepare(model, ["a red cat"], steps=2, record=Record(stats=False, gates=False), guidance=guidance)
    picture(prepared, sequential)
    if device.startswith("cuda"):
        queue.put(torch.cuda.max_memory_allocated() / 1e6)
    else:
        queue.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    model = build(given.device, given.dtype)
    record = Record(stats=False, gates=False)
    prepared = {
        name: prepare(model, ["a red cat"], steps=STEPS, record=record, guidance=guidance)
        for name, (guidance, _) in SETTINGS.items()
    }
    counted = {name: flops(prepared[name], sequential) for name, (_, sequential) in SETTINGS.items()}
    rounds: list[dict[str, float]] = []
    for number in range(given.rounds + 1):
        order = list(SETTINGS) if number % 2 else list(reversed(SETTINGS))
        times = {name: seconds(lambda name=name: picture(prepared[name], SETTINGS[name][1])) for name in order}
        rounds += [times] if number else []  # the first round warms up
    context = multiprocessing.get_context("spawn")
    memory = {}
    for name in SETTINGS:
        queue = context.Queue()
        process = context.Process(target=peak, args=(name, given.device, given.dtype, queue))
        process.start()
        memory[name] = queue.get()
        process.join()
    found: dict[str, Any] = {"machine": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    for name in SETTINGS:
        found[name] = {
            "FLOPs / plain": round(counted[name] / counted["plain"], 4),
            "bound": round(BOUNDS[name], 4) if name in BOUNDS else None,
            "time / plain": ratio([one[name] / one["plain"] for one in rounds]),
            "ms a step": round(1000 * float(np.median([one[name] for one in rounds])) / STEPS, 1),
            "peak MB": round(memory[name], 1),
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
