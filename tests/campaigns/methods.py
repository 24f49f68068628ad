"""Guidance methods on the demo, each at its best scale: the table of docs/findings.md.

    python tests/campaigns/methods.py --out cache/methods

Scales are chosen on other captions and noises than the table has: least detail plus structure, each divided by the unguided
picture's. Detail: distance of the fine spectrum to real pictures', decades; structure: distance of the blurred picture to its
prompt's real one (`interp.sweep`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import interp
from interp.evaluation.demo_scorer import real_pictures
from interp.experiments.kinds.sweep import expand
from interp.models.demo import world

TUNING, TEST = 7_001, 7_002  # seeds of the captions
METHODS: dict[str, list[str]] = {
    "CFG": ["cfg:{1.5,2,3,4}"],
    "**DG**, m 5": ["dg:{0.5,1,2}:block=5"],
    "**CFG + DG**, m 5": ["cfg:{1.5,2,3}+dg:{0.5,1,2}:block=5"],
    "APG": ["apg:{2,4,6}"],
    "CFG++": ["cfgpp:{0.6,1}"],
    "CFG-Zero*": ["cfg0:{2,3,4}"],
    "PAG, block 4, text kept": ["pag:{0.25,0.5,1,2}:blocks=4"],
    "PAG, block 4, text cut": ["pag:{0.25,0.5,1,2}:blocks=4:text=cut"],
    "SLG, block 4": ["slg:{0.25,0.5,1}:blocks=4"],
    "autoguidance": ["auto:{0.25,0.5,1}"],
    "amplify, block 5": ["amplify:{1.1,1.2,1.5}:block=5"],
    "DG, m 1": ["dg:{0.5,1,2}:block=1"],
}


def captions(count: int, seed: int) -> list[str]:
    """Different captions of the demo world."""
    found = dict.fromkeys(scene.caption() for scene in world.sample(4 * count, seed))
    return list(found)[:count]


def swept(guidance: list[str], texts: list[str], out: Path, **given: Any) -> xr.Dataset:
    """The sweep's result; unguided pictures first."""
    made = interp.sweep("demo", texts, ["none", *guidance], reference=real_pictures(texts), out=out, batch_size=16, **given)
    return made.run().result("sweep")


def best(found: xr.Dataset) -> str:
    """The setting of the least detail plus structure, each over the unguided picture's."""
    value = found["value"].sel(measure=["detail", "structure"])
    total = (value / value.isel(setting=0)).sum("measure").isel(setting=slice(1, None))
    return str(total["setting"].to_numpy()[int(np.argmin(total.to_numpy()))])


def cell(one: xr.Dataset, name: str, digits: int = 3) -> str:
    low, high = (f"{name}_low", f"{name}_high") if name != "value" else ("low", "high")
    return f"{float(one[name]):.{digits}f} [{float(one[low]):.{digits}f}, {float(one[high]):.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tuning", type=int, default=24, help="captions, with 2 noises each")
    parser.add_argument("--test", type=int, default=32, help="captions")
    parser.add_argument("--repeats", type=int, default=8, help="noises of every test caption")
    given = parser.parse_args()
    tuning, test = captions(given.tuning, TUNING), captions(given.test, TEST)
    tuned = swept([text for texts in METHODS.values() for text in texts], tuning, given.out / "tuning.zarr", seed=1, repeats=2)
    chosen = {}
    for name, texts in METHODS.items():
        own = [setting for text in texts for setting, _ in expand(text)]
        chosen[name] = best(tuned.sel(setting=["none", *own]))
    found = swept(list(chosen.values()), test, given.out / "test.zarr", seed=0, repeats=given.repeats)
    print("| method | setting | F | detail | less unguided | sharpness | structure | wins in detail | nearer to the truth |")
    print(f"|{'---|' * 9}")
    for name, setting in {"unguided": "none", **chosen}.items():
        one = found.sel(setting=setting)
        detail, sharpness, structure = (one.sel(measure=measure) for measure in ("detail", "sharpness", "structure"))
        wins = [cell(one.sel(won=won), "win", 2) if setting != "none" else "" for won in ("detail", "structure")]
        over = cell(detail, "over_first") if setting != "none" else ""
        cells = [name, f"`{setting}`", f"{float(one['forwards']):g}", cell(detail, "value"), over]
        cells += [f"{float(sharpness['value']):+.2f}", cell(structure, "value"), *wins]
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{found.attrs['rows']}; {found.attrs['interval']}.")


if __name__ == "__main__":
    main()
