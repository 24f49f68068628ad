"""Stores and JSON of the version before experiments were defined once (2026-11-28), which later versions must open, continue
and repeat: `python tests/before/make.py` wrote stores.zip and json/ with that version; `test_before.py` reads them.

Rows other than the first are taken out of every experiment's store, as if it had been killed there, and so is its result.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
PROMPTS = {
    "prompts.txt": "a red circle on a blue background\na green square on a yellow background\n",
    "others.txt": "a yellow circle on a green background\na blue square on a red background\n",
}
DRAW = "--model demo --steps 3 --seed 3"
RUN = "--prompts prompts.txt --run run.zarr"
MAKE = (
    f"trace {DRAW} --prompts prompts.txt --repeats 2 --record stats,gates,branches,hidden --record-steps -1 --blocks 2,5 --out run.zarr",
)
EXPERIMENTS = {
    "disrupt": f"disrupt {DRAW} {RUN} --blocks 1 --controls 1 --out disrupt.zarr --json",
    "dose": f"dose {DRAW} {RUN} --counts 2 --windows all --out dose.zarr --json",
    "patch": f"patch {DRAW} --clean prompts.txt --corrupted others.txt --run run.zarr --windows 1 --blocks 3 --out patch.zarr --json",
    "transport": f"transport {DRAW} --source prompts.txt --target others.txt --run run.zarr --strengths 1 --out transport.zarr --json",
    "swap": f"swap {DRAW} {RUN} --out swap.zarr --json",
    "lens": f"lens {DRAW} {RUN} --blocks 2,7 --steps-shown 1 --out lens.zarr --json",
    "sweep": f"sweep {DRAW} --prompts prompts.txt --guidance none --guidance cfg:{{2,4}} --out sweep.zarr --json",
    "govern": f"govern --model demo --steps 2 --seed 3 --prompts prompts.txt --blocks 1 --out govern --json",
    "collapse": f"evaluate {DRAW} --preset fc-disruption --prompts prompts.txt --repeats 1 --out collapse.zarr --json",
    "evaluate": f"evaluate {DRAW} --prompts prompts.txt --guidance none --guidance cfg:2 --repeats 1 --out evaluated.zarr --json",
}
COMMANDS = {
    **EXPERIMENTS,
    "gates": "gates --model demo --prompts prompts.txt --channels 29,3 --timesteps 5 --json",
    "gates-all": "gates --model demo --prompts prompts.txt --timesteps 4 --json",
    "features": "features --model demo --pairs 3 --steps 3 --blocks 3 --json",
    "massive": "massive run.zarr --no-save --json",
    "massive-ratio": "massive run.zarr --criterion ratio:8 --steps 0,-1 --channels 29 --no-save --json",
    "alignment": "alignment run.zarr --no-save --json",
    "attribute": "attribute run.zarr --no-save --json",
    "residual": "residual run.zarr --no-save --json",
    "segment": "segment run.zarr --no-save --json",
    "compare": "compare run.zarr other.zarr --json",
    "verify": "verify run.zarr --json",
    "info": "info run.zarr --json",
    "info-experiment": "info sweep.zarr --json",
    "export": "export run.zarr --out stats.csv --steps 0 --json",
    "models": "models --json",
    "support": "models --support --json",
    "inspect": "inspect --model demo --json",
    "dry-run": "trace --model demo --prompts prompts.txt --steps 3 --dry-run --no-probe --out new.zarr --json",
    "trace": f"{MAKE[0]} --json",
    "merge": "merge run.zarr --out joined.zarr --json",
    "score": "evaluate sweep.zarr --scorer plain --json",
}


def interp(words: str, folder: Path) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "interp", *words.split()]
    made = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if made.returncode:
        raise SystemExit(f"{words}: {made.stderr}")
    return made.stdout


def kill(store: Path) -> None:
    """Take an experiment's rows out but the first, and its results, as if it had been killed there."""
    import zarr

    done = zarr.open_group(str(store), mode="r+")["done"]
    done[1:] = 0
    for file in [*store.glob("outputs/*/c/*"), *store.glob("cells/*/c/*")]:
        if file.name != "0":
            shutil.rmtree(file)
    shutil.rmtree(store / "analysis", ignore_errors=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in PROMPTS.items():
            (folder / file).write_text(text)
        for words in MAKE:
            interp(words, folder)
        shutil.copytree(folder / "run.zarr", folder / "other.zarr")
        (HERE / "json").mkdir(exist_ok=True)
        for key, words in COMMANDS.items():
            found = json.loads(interp(words, folder))
            (HERE / "json" / f"{key}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
            print(key, flush=True)
        swapped(folder)
        for key in EXPERIMENTS:
            with contextlib.suppress(FileNotFoundError):
                kill(next(store for store in folder.glob(f"{key}*.zarr") if "-channels" not in store.name)) if key not in (
                    "swap",
                    "govern",
                ) else None
        for arm in sorted((folder / "govern").glob("block*.zarr")):
            shutil.rmtree(arm)
        shutil.rmtree(folder / "govern" / "original.zarr" / "analysis", ignore_errors=True)
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for file in sorted(folder.rglob("*")):
                part = file.relative_to(folder)
                if (
                    file.is_file()
                    and part.parts[0] not in ("other.zarr", "joined.zarr", "stats.csv", "collapse-channels.zarr")
                    and ".lock" not in file.name
                ):
                    archive.write(file, part)
        (HERE / "stores.zip").write_bytes(held.getvalue())


def swapped(folder: Path) -> None:
    """A second swap, killed after its first row."""
    from interp.experiments.swap import swap

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        swap(
            "demo",
            str(folder / "prompts.txt"),
            out=folder / "swap-killed.zarr",
            run=folder / "run.zarr",
            steps=3,
            seed=3,
            on_row=stop,
        )


if __name__ == "__main__":
    main()
