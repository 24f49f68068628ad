"""What the benchmarks share: options, turns, ratios with their spread, and Markdown tables.

Ratios are taken within a round, in which everything that is compared takes a turn, in an order that changes; what is reported
is their median and a 95% bootstrap interval of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib.metadata
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

PACKAGES = ("torch", "nnsight", "diffusers", "zarr", "xarray", "distributed", "streamlit")


@dataclasses.dataclass(frozen=True)
class Options:
    """What a benchmark is run with."""

    device: str = "cpu"
    dtype: str = "float32"
    rounds: int = 6
    model: str | None = None
    """A model in place of the random one, such as "flux": alias, folder or hub id."""
    folder: Path | None = None
    """Where large stores are kept between runs."""
    prompts: int = 100
    """Of the store that does not fit in memory."""
    size: str | None = None
    """A random model of a published size (`full_size.SIZES`) in place of a small one."""
    limit: float = math.inf
    """Seconds after which tracing and guidance begin no further round, once they have three."""


def machine(options: Options) -> dict[str, str]:
    """Where numbers were measured."""
    processor = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    card = torch.cuda.get_device_name(0) if options.device.startswith("cuda") else ""
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return {
        "machine": ", ".join(part for part in (processor or platform.machine(), cores, card, options.dtype) if part),
        "versions": ", ".join(_versions()),
    }


def _versions() -> Iterator[str]:
    """Of the packages that are there."""
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield f"{name} {importlib.metadata.version(name)}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes, the card's work included. What others left behind is swept up before."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def card_peaks(calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Peak memory on the card in MB of every call, weights included."""
    found = {}
    for name, call in calls.items():
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        call()
        found[name] = round(torch.cuda.max_memory_allocated() / 1e6, 1)
    return found


def turns(
    calls: Mapping[str, Callable[[], Any]], rounds: int, *, warm: bool = False, limit: float = math.inf
) -> list[dict[str, float]]:
    """Seconds of every call in every round, after one that warms up where nothing has."""
    for call in () if warm else calls.values():
        call()
    found: list[dict[str, float]] = []
    start = time.perf_counter()
    for number in range(rounds):
        if number >= 3 and time.perf_counter() - start > limit:
            break
        order = np.random.default_rng(number).permutation(list(calls))
        found.append({str(name): seconds(calls[str(name)]) for name in order})
        print(f"  round {number + 1}:", {name: round(one, 3) for name, one in found[-1].items()}, file=sys.stderr, flush=True)
    return found


def interval(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median and its 95% bootstrap interval."""
    draw = np.random.default_rng(0)
    medians = np.median(draw.choice(values, (4000, len(values))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return {
        "median": round(float(np.median(values)), digits),
        "low": round(float(low), digits),
        "high": round(float(high), digits),
    }


def ratio(rounds: Sequence[Mapping[str, float]], over: str, under: str) -> dict[str, float]:
    """One call's time over another's, within each round."""
    return interval([one[over] / one[under] for one in rounds])


def said(model: Mapping[str, int] | str) -> str:
    """A model in words: its name, or the random one's shape."""
    if isinstance(model, str):
        return model
    tokens = (model["resolution"] // 8) ** 2
    return f"{model['blocks']} blocks x {model['heads'] * model['head_width']} channels, {tokens} image tokens, random"


def shown(value: Mapping[str, float] | float | None) -> str:
    """A number, or a median with its interval."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return f"{value['median']:g} [{value['low']:g}, {value['high']:g}]"
    return f"{value:g}"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])


def peak_of(code: str, *arguments: str) -> dict[str, Any]:
    """Run Python in a new process; what it prints last, as JSON, with its peak resident memory in MB.

    A child's ru_maxrss would start at its parent's peak, so the high-water mark is read inside.
    """
    import json

    tail = (
        "\nimport json as _json"
        "\n_peak = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')) / 1000"
        "\nprint(_json.dumps({'peak_mb': round(_peak, 1), **globals().get('REPORT', {})}))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code + tail, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
