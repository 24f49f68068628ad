"""All benchmarks: one JSON, and the page of the docs that is written from it.

    python tests/benchmarks/bench.py [--only NAME ...] [--rounds 6] [--device cuda --dtype bfloat16 --model flux]
                                     [--size flux] [--prompts 100 --folder DIR] [--out docs/benchmarks.json]

What is not measured again keeps its old numbers, each with its own date and machine. `--model` puts a real model in place of
the random one where tracing is measured; `--device cuda` runs everything on the card. `--size` measures tracing and guidance
on a random model of a published size, and keeps that next to the usual numbers.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, as transformers does: kernels run on the CPU
sys.path.insert(0, str(Path(__file__).parent))

import full_size
from common import Options, machine, said, shown, table

ORDER = ("tracing", "host", "costs", "writing", "analyses", "dashboard", "workers", "experiments", "guidance", "start_up")
SIZED = ("tracing", "guidance")
PAIRS = (("interp", "untraced"), ("interp", "hooks"), ("hooks", "untraced"))
DOCS = Path(__file__).parents[2] / "docs"
HEAD = """# Benchmarks

This page is written by `make bench` (`tests/benchmarks/bench.py`) from `docs/benchmarks.json`; nothing in it is typed by hand.
Ratios are taken within a round, in which everything that is compared takes a turn; shown are the median and a 95% bootstrap
interval of it. They are of a shared machine of two cores, or of the card that is named, never of a timed test.
`--device cuda --dtype bfloat16 --size flux` measures tracing and guidance on a card and a random model of FLUX.1's size, with
tiny text encoders and a tiny autoencoder; `--model flux` takes real weights.
"""


def page(measured: dict[str, Any]) -> str:
    """The docs' page."""
    keys = sorted(measured, key=lambda key: ORDER.index(key.split()[0]))
    return "\n".join([HEAD, _costs(measured), *(_section(key, measured[key]) for key in keys)])


def _costs(measured: dict[str, Any]) -> str:
    """What tracing costs, at which size, on what."""
    rows = []
    for key, found in measured.items():
        name, _, size = key.partition(" ")
        if name == "tracing":
            report = found["report"]
            title = full_size.SIZES[size].title if size else said(report["model"])
            ratios = [shown(report["ratios"][f"{over} / {under}"]) for over, under in PAIRS]
            memory = report["peak MB"]
            more = f"{memory['interp'] - memory['untraced']:.0f}" if memory else ""
            rows.append([title, found["machine"], *ratios, more, found["date"]])
    return (
        table(["what a trace costs", "on", *(f"{a} / {b}" for a, b in PAIRS), "memory over untraced, MB", "date"], rows) + "\n"
    )


def _section(key: str, found: dict[str, Any]) -> str:
    """One entry: "tracing", or "tracing flux", the same of a model of a published size."""
    name, _, size = key.partition(" ")
    module = importlib.import_module(name)
    title = f"{module.TITLE}: {full_size.SIZES[size].title}" if size else module.TITLE
    about = " ".join(str(module.__doc__).split())
    note = f" {found['note'].rstrip('.')}." if found.get("note") else ""
    where = f"*{found['date']}; {found['machine']}; {found['versions']}.{note}*"
    return f"## {title}\n\n{about}\n\n{module.page(found['report'])}\n\n{where}\n"


def main() -> None:
    """Measure, and write JSON and page."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ORDER)
    parser.add_argument("--page", action="store_true", help="measure nothing: write the page from the JSON")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument(
        "--limit", type=float, default=math.inf, help="seconds after which tracing and guidance end their rounds"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--model")
    parser.add_argument(
        "--size", choices=full_size.SIZES, help="a random model of a published size: tracing and guidance alone"
    )
    parser.add_argument("--prompts", type=int, default=100, help="of the store that does not fit in memory: 0.17 GB each")
    parser.add_argument("--folder", type=Path, help="where that store is kept between runs")
    parser.add_argument("--note", help="said with what is measured now, such as what else the machine was doing")
    parser.add_argument("--out", type=Path, default=DOCS / "benchmarks.json")
    given = parser.parse_args()
    options = Options(
        given.device, given.dtype, given.rounds, given.model, given.folder, given.prompts, given.size, given.limit
    )
    chosen = given.only or (SIZED if given.size else ORDER)
    if given.size and not set(chosen) <= set(SIZED):
        parser.error(f"--size goes with --only {' '.join(SIZED)}")
    measured: dict[str, Any] = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    warnings.simplefilter("ignore")
    for name in () if given.page else chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        report = importlib.import_module(name).measure(options)
        where = {"date": datetime.date.today().isoformat(), **machine(options)}
        measured[f"{name} {given.size}" if given.size else name] = {
            **where,
            **({"note": given.note} if given.note else {}),
            "report": report,
        }
        given.out.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    given.out.with_suffix(".md").write_text(page(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
