"""The campaign of faults: every kind at random moments and places; each store is finished and compared with an undisturbed one.

    python tests/faults/campaign.py [--share 1.0] [--seed 0] [--kind NAME] [--write docs/faults.md]

Lost: rows that were done before a fault and not after it. Doubled: rows that were done and were marked done again. Wrong:
stores in which any array differs from the undisturbed run's, bit for bit (to 1e-5 where batches or workers were changed by the
fault), or that `interp verify` finds fault with.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from kinds import KINDS, Broken, Kind  # noqa: E402
from world import PROMPTS, World, differences, marks, rows_done, unlocked  # noqa: E402

from interp.models import tiny  # noqa: E402
from interp.store.create import writing_lock  # noqa: E402


def finish(world: World, broken: Broken) -> dict[str, Any]:
    """Go on with a broken store as its user would, and compare."""
    before = marks(broken.out)
    with unlocked():
        world.trace(broken.out)
        with writing_lock(broken.out):
            pass  # nobody holds it
    broken.restore()
    again = sum(marks(broken.out).get(row) != when for row, when in before.items())
    wrong = differences(broken.out, world.truth, broken.tolerance)
    left = [path.name for path in broken.out.parent.iterdir() if "partial" in path.name]
    return {
        "lost": broken.lost + len(PROMPTS) - len(rows_done(broken.out)),
        "doubled": broken.doubled + again,
        "wrong": wrong,
        "notes": [*broken.notes, *(f"{name} was left behind" for name in left)],
    }


def run(world: World, kind: Kind, count: int, each: int, draw: random.Random) -> dict[str, Any]:
    """Inject `count` faults of a kind, `each` into one store."""
    found: dict[str, Any] = {"injected": 0, "stores": 0, "lost": 0, "doubled": 0, "wrong": [], "notes": []}
    started = time.monotonic()
    while found["injected"] < count:
        broken = kind(world, draw, min(each, count - found["injected"]))
        result = finish(world, broken)
        found["injected"] += broken.injected
        found["stores"] += 1
        for name, value in result.items():
            found[name] += value
    return {**found, "seconds": round(time.monotonic() - started, 1)}


def page(report: dict[str, Any]) -> str:
    """The docs' table."""
    lines = [
        "# Faults",
        "",
        "This page is written by `python tests/faults/campaign.py --write docs/faults.md`; the short form is in the test suite",
        "(`tests/faults/test_faults.py`).",
        "",
        "Every kind of fault is injected at random moments or places into traces of a tiny model"
        f" ({len(PROMPTS)} different rows,",
        "batches of 2, hidden states kept). The store is then finished by the same command and compared with an undisturbed",
        "run's, every array, bit for bit (to 1e-5 where a fault changes batches, or where workers traced). *Lost*: rows done",
        "before a fault and not after it. *Doubled*: rows that were done and were marked done again. *Wrong*: stores with an",
        "array that differs, or with which `interp verify` finds fault.",
        "",
        "| fault | injected | stores | rows lost | rows doubled | stores wrong | other complaints |",
        "|---|---|---|---|---|---|---|",
    ]
    kinds = report["kinds"]
    for name, one in kinds.items():
        counts = f"{one['lost']} | {one['doubled']} | {len(one['wrong'])} | {len(one['notes'])}"
        lines.append(f"| {name} | {one['injected']} | {one['stores']} | {counts} |")
    total = {key: sum(one[key] for one in kinds.values()) for key in ("injected", "stores", "lost", "doubled")}
    both = {key: sum(len(one[key]) for one in kinds.values()) for key in ("wrong", "notes")}
    lines.append(
        f"| **all** | **{total['injected']}** | {total['stores']} | **{total['lost']}** | **{total['doubled']}** | "
        f"**{both['wrong']}** | {both['notes']} |"
    )
    lines += ["", f"{report['date']}, {report['machine']}; seed {report['seed']}, {report['minutes']} minutes.", ""]
    for name, one in kinds.items():
        lines += [f"- {name}: {text}" for text in dict.fromkeys([*one["wrong"], *one["notes"]])]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Run the campaign, print its JSON and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the faults of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        world = World(folder, tiny.build("sd3", folder / "model"))
        kinds = {}
        for kind in chosen.kind or KINDS:
            broken, count, each = KINDS[kind]
            kinds[kind] = run(world, broken, math.ceil(count * chosen.share), each, random.Random(f"{chosen.seed} {kind}"))
            print(kind, json.dumps(kinds[kind]), file=sys.stderr, flush=True)
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "seed": chosen.seed,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "kinds": kinds,
    }
    print(json.dumps(report, indent=2))
    if chosen.write:
        chosen.write.write_text(page(report), encoding="utf-8")


if __name__ == "__main__":
    main()
