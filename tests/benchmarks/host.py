"""Host time: what the main thread does for each call of a block, on a model with FLUX.1's 57 blocks and 32 channels, whose
kernels take next to nothing. Thread time, the slope between a long and a short run, so that what is paid once a run does not
count. The plain pipeline, plain torch hooks with the same reductions, and `interp.trace`'s way take turns.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Options, interval, shown, table
from tracing import hooked, plain

import interp
from interp.models import tiny
from interp.runs.recorded import make_recorders, make_schema
from interp.tracing.group import trace_group
from interp.tracing.prepare import Prepared, prepare

TITLE = "Host time of a block's call"
SHAPE = {"blocks": 19, "single_blocks": 38, "resolution": 128}
SHORT, LONG = 5, 25


def reduced(prepared: Sequence[Prepared]) -> None:
    """The trace without its store."""
    for one in prepared:
        rows = one.plan.rows()
        recorders = make_recorders(one, make_schema(one), rows, lambda *state: None)
        trace_group(one, rows, recorders)


WAYS: Mapping[str, Callable[[Sequence[Prepared]], None]] = {"untraced": plain, "hooks": hooked, "interp": reduced}


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
    """Microseconds of each way, and ratios within a round."""
    with tempfile.TemporaryDirectory() as folder:
        path = tiny.build("flux", Path(folder) / "model", **SHAPE)
        bare, model = interp.load(path), interp.load(path)
        calls = {}
        for name, way in WAYS.items():
            for steps in (SHORT, LONG):
                prepared = [prepare(bare if name != "interp" else model, ["a red cat"], steps=steps)]
                calls[name, steps] = lambda way=way, prepared=prepared: way(prepared)
        for call in calls.values():
            call()
        rounds = []
        for number in range(options.rounds):
            order = np.random.default_rng(number).permutation(len(calls))
            keys = list(calls)
            taken = {keys[place]: thread_seconds(calls[keys[place]]) for place in order}
            blocks = len(model.anatomy.blocks)
            rounds.append({name: (taken[name, LONG] - taken[name, SHORT]) / (LONG - SHORT) / blocks * 1e6 for name in WAYS})
    return {
        "blocks": blocks,
        "rounds": options.rounds,
        "microseconds": {name: interval([one[name] for one in rounds], 0) for name in WAYS},
        "ratios": {f"{name} / untraced": interval([one[name] / one["untraced"] for one in rounds]) for name in WAYS},
        "threads": torch.get_num_threads(),
    }


def page(report: dict[str, Any]) -> str:
    """The docs' table."""
    rows = [
        [name, shown(report["microseconds"][name]), shown(report["ratios"][f"{name} / untraced"]), _target(name)]
        for name in WAYS
    ]
    return table(["", "µs a block's call", "over untraced, 95% interval", "target"], rows)


def _target(name: str) -> str:
    return "1.10" if name == "interp" else ""


if __name__ == "__main__":
    import json
    import sys
    import warnings

    warnings.simplefilter("ignore")
    print(json.dumps(measure(Options(rounds=int(sys.argv[1]) if len(sys.argv) > 1 else 5)), indent=1))
