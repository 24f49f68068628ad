"""What guidance costs: FLOPs as torch's FlopCounterMode counts them over the transformer's calls, and time, with and without
the fork, beside plain sampling and CFG. Detail Guidance at block m = 3 of the N = 12 of a random model of SD3's shape; the
bounds are 1 + (N - m - 1) / N and 2 + (N - m - 1) / N. Peak memory is a card's; on a CPU, building the model decides it.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np
import torch
from common import Options, ratio, shown, table, turns
from torch.utils.flop_counter import FlopCounterMode
from tracing import SHAPE

from interp.experiments.clean import sample
from interp.guidance import ClassifierFree, DetailGuidance
from interp.models import tiny
from interp.models.load import adopt
from interp.models.quiet import quiet
from interp.plan import Record
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

TITLE = "Guidance"
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
    queue.put(torch.cuda.max_memory_allocated() / 1e6)


def measure(options: Options) -> dict[str, Any]:
    """FLOPs, times and memory of every setting, over plain sampling."""
    model = build(options.device, options.dtype)
    record = Record(stats=False, gates=False)
    prepared = {
        name: prepare(model, ["a red cat"], steps=STEPS, record=record, guidance=guidance)
        for name, (guidance, _) in SETTINGS.items()
    }
    counted = {name: flops(prepared[name], sequential) for name, (_, sequential) in SETTINGS.items()}
    rounds = turns(
        {name: lambda name=name: picture(prepared[name], SETTINGS[name][1]) for name in SETTINGS},  # type: ignore[misc]
        options.rounds,
    )
    memory = {}
    if options.device.startswith("cuda"):
        context = multiprocessing.get_context("spawn")
        for name in SETTINGS:
            queue = context.Queue()
            process = context.Process(target=peak, args=(name, options.device, options.dtype, queue))
            process.start()
            memory[name] = round(queue.get(), 1)
            process.join()
    found = {
        name: {
            "FLOPs / plain": round(counted[name] / counted["plain"], 4),
            "bound": round(BOUNDS[name], 4) if name in BOUNDS else None,
            "time / plain": ratio(rounds, name, "plain"),
            "ms a step": round(1000 * float(np.median([one[name] for one in rounds])) / STEPS, 1),
            "peak MB": memory.get(name),
        }
        for name in SETTINGS
    }
    return {"steps": STEPS, "rounds": options.rounds, "settings": found}


def page(report: dict[str, Any]) -> str:
    """The docs' table."""
    rows = []
    for name, one in report["settings"].items():
        bound = "" if one["bound"] is None else f"{one['bound']:.3f}"
        times = shown(one["time / plain"])
        rows.append([name, f"{one['FLOPs / plain']:.3f}", bound, times, one["ms a step"], one["peak MB"] or ""])
    about = f"{report['steps']} steps, {report['rounds']} rounds."
    return about + "\n\n" + table(["", "FLOPs / plain", "bound", "time / plain", "ms a step", "peak MB on a card"], rows)
