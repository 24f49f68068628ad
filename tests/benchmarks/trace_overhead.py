"""What tracing costs: untraced, plain torch hooks doing the same reductions, and `interp.trace` to disk, side by side.

    python tests/benchmarks/trace_overhead.py [--rounds 6] [--device cuda --dtype bfloat16]

A random SD3-shaped model (12 blocks, 512 channels, 256 image tokens). The three take turns within each round, in an order
that changes, and what is reported are ratios within a round: median, and a bootstrap interval of it. Then the peak memory of a
process that traces 10 prompts and of one that traces 100.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import interp
from interp.models import tiny
from interp.models.quiet import quiet
from interp.statistics import token_statistics

SHAPE = {"blocks": 12, "heads": 8, "head_width": 64, "resolution": 128}
PROMPTS = [f"a red cat {number}" for number in range(4)]
STEPS = 20


def untraced(pipe: Any) -> None:
    for prompt in PROMPTS:
        with quiet():
            pipe(
                prompt,
                num_inference_steps=STEPS,
                guidance_scale=1.0,
                max_sequence_length=8,
                height=SHAPE["resolution"],
                width=SHAPE["resolution"],
                generator=torch.Generator().manual_seed(0),
            )


def hooked(pipe: Any) -> None:
    """Plain hooks with the reductions of record=Record(stats=True, gates=True), kept in memory, nothing written."""
    kept: list[Any] = []
    states: list[Any] = []
    gates: list[Any] = []
    handles = []

    def on_step(module: Any, args: Any, output: Any) -> None:
        """What leaves the device leaves it once a step, as in interp."""
        kept.append((torch.stack(states).cpu().numpy(), torch.stack(gates).cpu().numpy()))
        states.clear()
        gates.clear()

    handles.append(pipe.transformer.register_forward_hook(on_step))
    for block in pipe.transformer.transformer_blocks:

        def on_block(module: Any, args: Any, output: Any) -> None:
            states.extend(token_statistics(state) for state in output if state is not None)

        def on_norm(module: Any, args: Any, output: Any) -> None:
            if isinstance(output, tuple):
                gates.extend(output[item].float() for item in (1, 4))

        handles.append(block.register_forward_hook(on_block))
        handles += [norm.register_forward_hook(on_norm) for norm in (block.norm1, block.norm1_context)]
    untraced(pipe)
    for handle in handles:
        handle.remove()
    streams = 2 * len(pipe.transformer.transformer_blocks) - 1  # the last block has no text
    assert [(len(a), len(b)) for a, b in kept] == [(streams, 2 * streams)] * STEPS * len(PROMPTS)


def traced(model: interp.Model, folder: Path) -> None:
    out = folder / "run.zarr"
    shutil.rmtree(out, ignore_errors=True)
    run = interp.trace(model, PROMPTS, out=out, steps=STEPS)
    assert run.rows_done == len(PROMPTS)


def seconds(call: Callable[[], None]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interval(values: list[float]) -> dict[str, float]:
    """Median and its 95% bootstrap interval."""
    draw = np.random.default_rng(0)
    medians = np.median(draw.choice(values, (4000, len(values))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return {"median": round(float(np.median(values)), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def overhead(folder: Path, rounds: int, device: str, dtype: str) -> dict[str, Any]:
    source = tiny.build("sd3", folder / "model", **SHAPE)
    model = interp.load(source, device=device, dtype=dtype)
    plain = interp.load(source, device=device, dtype=dtype).pipe  # never wrapped by nnsight
    calls = {
        "untraced": lambda: untraced(plain),
        "hooks": lambda: hooked(plain),
        "interp": lambda: traced(model, folder),
    }
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for round_number in range(rounds):
        for name in np.random.default_rng(round_number).permutation(order):
            times[name].append(seconds(calls[name]))
    ratios = {
        f"{a}/{b}": interval([x / y for x, y in zip(times[a], times[b], strict=True)])
        for a, b in (("interp", "untraced"), ("interp", "hooks"), ("hooks", "untraced"), ("untraced", "untraced"))
        if a != b
    }
    return {"seconds": {name: interval(values) for name, values in times.items()}, "ratios": ratios}


def peak_memory(source: Path, prompts: int) -> float:
    """Peak resident memory, MB, of a fresh process that traces this many prompts with hidden states."""
    code = f"""
import tempfile, interp
model = interp.load({str(source)!r})
record = interp.Record(hidden=interp.Select(blocks="0,6,-1"))
with tempfile.TemporaryDirectory() as folder:
    texts = [f"a red cat {{n}}" for n in range({prompts})]
    interp.trace(model, texts, out=folder + "/run.zarr", steps=2, record=record)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return round(float(result.stdout) / 1000, 1)  # a child's ru_maxrss would start at its parent's peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--no-memory", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report: dict[str, Any] = {
            "model": SHAPE,
            "prompts a run": len(PROMPTS),
            "steps": STEPS,
            "rounds": chosen.rounds,
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {chosen.device}, {chosen.dtype}",
            "versions": {"torch": torch.__version__},
            **overhead(folder, chosen.rounds, chosen.device, chosen.dtype),
        }
        if not chosen.no_memory:
            ten, hundred = (peak_memory(folder / "model", count) for count in (10, 100))
            report["peak_memory_mb"] = {"10 prompts": ten, "100 prompts": hundred, "ratio": round(hundred / ten, 4)}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
