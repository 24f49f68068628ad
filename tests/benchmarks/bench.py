"""All benchmarks: one JSON, and the page of the docs that is written from it.

    python tests/benchmarks/bench.py [--only NAME ...] [--rounds 6] [--device cuda --dtype bfloat16 --model flux]
                                     [--prompts 100 --folder DIR] [--out docs/benchmarks.json]

What is not measured again keeps its old numbers, each with its own date and machine. `--model` puts a real model in place of
the random one where tracing is measured; `--device cuda` runs everything on the card.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))

from common import Options, machine

ORDER = ("tracing", "costs", "writing", "analyses", "dashboard", "workers", "experiments", "guidance", "start_up")
DOCS = Path(__file__).parents[2] / "docs"
HEAD = """# Benchmarks

This page is written by `make bench` (`tests/benchmarks/bench.py`) from `docs/benchmarks.json`; nothing in it is typed by hand.
Ratios are taken within a round, in which everything that is compared takes a turn; shown are the median and a 95% bootstrap
interval of it. They are of a shared machine of two cores, never of a timed test. `--device cuda --dtype bfloat16 --model flux`
runs the same on a card and a full-size model; no numbers of a card are here until one has been measured.
"""


def page(measured: dict[str, Any]) -> str:
    """The docs' page."""
    parts = [HEAD]
    for name in (name for name in ORDER if name in measured):
        module, found = importlib.import_module(name), measured[name]
        about = " ".join(str(module.__doc__).split())
        note = f" {found['note'].rstrip('.')}." if found.get("note") else ""
        where = f"*{found['date']}; {found['machine']}; {found['versions']}.{note}*"
        parts.append(f"## {module.TITLE}\n\n{about}\n\n{module.page(found['report'])}\n\n{where}\n")
    return "\n".join(parts)


def main() -> None:
    """Measure, and write JSON and page."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ORDER)
    parser.add_argument("--page", action="store_true", help="measure nothing: write the page from the JSON")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--model")
    parser.add_argument("--prompts", type=int, default=100, help="of the store that does not fit in memory: 0.17 GB each")
    parser.add_argument("--folder", type=Path, help="where that store is kept between runs")
    parser.add_argument("--note", help="said with what is measured now, such as what else the machine was doing")
    parser.add_argument("--out", type=Path, default=DOCS / "benchmarks.json")
    given = parser.parse_args()
    options = Options(given.device, given.dtype, given.rounds, given.model, given.folder, given.prompts)
    measured: dict[str, Any] = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    warnings.simplefilter("ignore")
    for name in () if given.page else given.only or ORDER:
        print(f"{name} ...", file=sys.stderr, flush=True)
        report = importlib.import_module(name).measure(options)
        where = {"date": datetime.date.today().isoformat(), **machine(options)}
        measured[name] = {**where, **({"note": given.note} if given.note else {}), "report": report}
        given.out.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    given.out.with_suffix(".md").write_text(page(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
