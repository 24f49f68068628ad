"""What guidance costs: FLOPs as torch's FlopCounterMode counts them over the transformer's calls, and time, with and without
the fork, next to plain sampling and CFG. Detail Guidance at block m of the N of a random model; the bounds are
1 + (N - m - 1) / N and 2 + (N - m - 1) / N. Peak memory is a card's; on a CPU, building the model decides it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import full_size
import numpy as np
import torch
from common import Options, card_peaks, ratio, shown, table, turns
from torch.utils.flop_counter import FlopCounterMode
from tracing import SHAPE

from interp.base.plan import Record
from interp.experiments.clean import sample
from interp.guidance import ClassifierFree, DetailGuidance
from interp.models import tiny
from interp.models.load import adopt
from interp.models.quiet import quiet
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

TITLE = "Guidance"
BLOCK, STEPS = 3, 4
ONE = ["a red cat"]


def settings(block: int) -> dict[str, tuple[Any, bool]]:
    """(guidance, whether every branch is a call of its own) by name."""
    cfg, detail = ClassifierFree(4), DetailGuidance(channels=[7], block=block, scale=1.0)
    return {
        "plain": (None, False),
        "CFG": (cfg, False),
        "DG": (detail, False),
        "CFG+DG": (cfg + detail, False),
        "DG, no fork": (detail, True),
        "CFG+DG, no fork": (cfg + detail, True),
    }


def build(options: Options) -> Model:
    """A random model, small or of a published size."""
    if options.size is not None:
        return full_size.build(options.size, options.device, options.dtype)
    with quiet():
        pipe, defaults = tiny.make("sd3", **SHAPE)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(options.device, getattr(torch, options.dtype))
    return Model(adopt(pipe, "bench", defaults=defaults, device=options.device))


def picture(prepared: Prepared, sequential: bool) -> None:
    guide, row = prepared.guide(sequential=sequential), prepared.plan.rows()[0]
    if guide is None:
        sample(prepared, [row])
        return
    with guide.guiding(prepared.model.pipe.transformer):
        sample(prepared, [row])


def flops(model: Model, call: Callable[[], None]) -> float:
    """Of the transformer alone."""
    with FlopCounterMode(display=False) as counter:
        call()
    name = next(key for key in counter.get_flop_counts() if key.endswith(type(model.pipe.transformer).__name__))
    return float(sum(counter.get_flop_counts()[name].values()))


def measure(options: Options) -> dict[str, Any]:
    """FLOPs, times and memory of every setting, over plain sampling."""
    model = build(options)
    block = full_size.detail_block(options.size) if options.size else BLOCK
    count, chosen = len(model.anatomy.blocks), settings(block)
    rest = (count - block - 1) / count
    bounds = {"DG": 1 + rest, "CFG+DG": 2 + rest}
    record = Record(stats=False, gates=False)
    prepared = {
        name: prepare(model, ONE, steps=STEPS, record=record, guidance=guidance) for name, (guidance, _) in chosen.items()
    }
    calls = {name: functools.partial(picture, prepared[name], sequential) for name, (_, sequential) in chosen.items()}
    counted = {name: flops(model, call) for name, call in calls.items()}
    memory = card_peaks(calls) if options.device.startswith("cuda") else {}
    rounds = turns(calls, options.rounds, warm=True, limit=options.limit)
    found = {
        name: {
            "FLOPs / plain": round(counted[name] / counted["plain"], 4),
            "bound": round(bounds[name], 4) if name in bounds else None,
            "time / plain": ratio(rounds, name, "plain"),
            "ms a step": round(1000 * float(np.median([one[name] for one in rounds])) / STEPS, 1),
            "peak MB": memory.get(name),
        }
        for name in chosen
    }
    said = full_size.said(model) if options.size else None
    return {"model": said, "block": block, "blocks": count, "steps": STEPS, "rounds": len(rounds), "settings": found}


def page(report: dict[str, Any]) -> str:
    """The docs' table."""
    rows = []
    for name, one in report["settings"].items():
        bound = "" if one["bound"] is None else f"{one['bound']:.3f}"
        times = shown(one["time / plain"])
        rows.append([name, f"{one['FLOPs / plain']:.3f}", bound, times, one["ms a step"], one["peak MB"] or ""])
    model = report.get("model") or f"{SHAPE['blocks']} blocks x {SHAPE['heads'] * SHAPE['head_width']} channels, random"
    place = f"m = {report.get('block', BLOCK)}, N = {report.get('blocks', SHAPE['blocks'])}"
    about = f"{report['steps']} steps, {report['rounds']} rounds; {place}; model: {model}."
    return about + "\n\n" + table(["", "FLOPs / plain", "bound", "time / plain", "ms a step", "peak MB on a card"], rows)
