"""Host time: what the main thread does for each call of a block, on a model with FLUX.1's 57 blocks and 32 channels, whose
kernels take next to nothing. Thread time, the slope between a long and a short run, so that what is paid
once a run does not count. The plain pipeline, plain torch hooks with the same reductions, and a trace without its store take
turns. Counts are those of tests/test_cost.py; the kernel's are of Triton's interpreter.
"""

from __future__ import annotations

import functools
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from common import Options, interval, shown, table
from tracing import hooked, plain

sys.path.insert(0, str(Path(__file__).parents[1]))

import counting

import interp
from interp.models import tiny
from interp.tracing import statistics
from interp.tracing.prepare import Prepared, prepare

try:
    from interp.tracing import kernel
except ImportError:
    kernel = None  # type: ignore[assignment]

TITLE = "Host time of a block's call, and counts"
SHAPE = {"blocks": 19, "single_blocks": 38}
RESOLUTIONS = (64, 128, 256)
TARGET = 1.10
SHORT, LONG = 5, 20


def traced(prepared: Sequence[Prepared]) -> None:
    """The trace without its store."""
    for one in prepared:
        counting.reduced(one)


WAYS: Mapping[str, Callable[[Sequence[Prepared]], None]] = {"untraced": plain, "hooks": hooked, "interp": traced}


def thread_seconds(call: Callable[[], Any]) -> float:
    """Thread time of a call."""
    gc.collect()
    gc.disable()
    start = time.thread_time()
    call()
    found = time.thread_time() - start
    gc.enable()
    return found


def measure(options: Options) -> dict[str, Any]:
    """Microseconds of each way by size, ratios within a round, and counts."""
    found: dict[str, Any] = {"rounds": options.rounds, "sizes": {}}
    with tempfile.TemporaryDirectory() as folder:
        for resolution in RESOLUTIONS:
            path = tiny.build("flux", Path(folder) / f"{resolution}", **SHAPE, resolution=resolution)
            bare, model = interp.load(path), interp.load(path)
            rounds = _rounds(bare, model, options.rounds)
            found["sizes"][str(resolution)] = {
                "microseconds": {name: interval([one[name] for one in rounds], 0) for name in WAYS},
                "ratios": {name: interval([one[name] / one["untraced"] for one in rounds]) for name in WAYS},
                "added": interval([one["interp"] - one["untraced"] for one in rounds], 0),
            }
            if resolution == RESOLUTIONS[0]:
                found["counts"] = counted(model)
    return found


def _rounds(bare: interp.Model, model: interp.Model, count: int) -> list[dict[str, float]]:
    """Microseconds of a block's call by way, in each round."""
    calls: dict[tuple[str, int], Callable[[], None]] = {}
    for name, way in WAYS.items():
        for steps in (SHORT, LONG):
            prepared = [prepare(bare if name != "interp" else model, ["a red cat"], steps=steps)]
            calls[name, steps] = functools.partial(way, prepared)
    for call in calls.values():
        call()
    keys, rounds, blocks = list(calls), [], len(model.anatomy.blocks)
    for number in range(count):
        order = np.random.default_rng(number).permutation(len(keys))
        taken = {keys[place]: thread_seconds(calls[keys[place]]) for place in order}
        rounds.append({n: (taken[n, LONG] - taken[n, SHORT]) / (LONG - SHORT) / blocks * 1e6 for n in WAYS})
    return rounds


def counted(model: interp.Model) -> dict[str, float]:
    """Operations a site, bytes read over those of a state, and waits a step."""

    def make(steps: int) -> Prepared:
        return prepare(model, ["a red cat"], steps=steps)

    sites = sum(1 for site in model.anatomy.sites() if site.kind in ("hidden", "alpha"))
    found = {"operations a state or gate": sum(counting.added_a_step(counting.operations, make).values()) / sites}
    state = torch.randn(1, 4096, 64, dtype=torch.bfloat16)
    with counting.Counting(state) as reads:
        statistics.token_statistics(state)
        statistics.sample_magnitudes(state)
    found["bytes read over a state's, torch"] = reads.read / state.nbytes
    if kernel is not None:
        with patch.object(kernel, "PROGRAMS", kernel.PROGRAMS * 64 // 3072), counting.counted_loads() as loaded:
            kernel.token_statistics(state)
        found["bytes read over a state's, kernel"] = loaded[0] / state.nbytes
    waits = counting.added_a_step(counting.waits, make)
    found["waits for the device a step"] = sum(max(count, 0) for count in waits.values())
    return {name: round(value, 3) for name, value in found.items()}


def page(report: dict[str, Any]) -> str:
    """The docs' tables."""
    rows = []
    for resolution, own in report["sizes"].items():
        met = {"interp": _met(own["ratios"]["interp"])}
        rows += [
            [f"{resolution} x {resolution}", n, shown(own["microseconds"][n]), shown(own["ratios"][n]), met.get(n, "")]
            for n in WAYS
        ]
    most = {"torch": "2.1", "kernel": "1.1", "a step": "0"}
    counts = [[n, f"{v:g}", next((t for end, t in most.items() if n.endswith(end)), "")] for n, v in report["counts"].items()]
    times = table(["pixels", "", "us a block's call", "over untraced, 95% interval", "target 1.10"], rows)
    added = ", ".join(f"{shown(own['added'])} at {resolution}" for resolution, own in report["sizes"].items())
    return f"A trace adds, in us a call: {added} pixels.\n\n{times}\n\n" + table(["counts", "", "at most"], counts)


def _met(ratio: dict[str, float]) -> str:
    return "met" if ratio["high"] <= TARGET else "**not met**"
