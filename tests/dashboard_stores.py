"""Real stores of the demo model, whole and broken, for the dashboard's tests: `python tests/dashboard_stores.py FOLDER`."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import zarr

import interp
from interp.experiments.kinds.collapse import collapse
from interp.experiments.kinds.disrupt import disrupt
from interp.experiments.kinds.dose import dose
from interp.experiments.kinds.lens import lens
from interp.experiments.kinds.patch import patch
from interp.experiments.kinds.swap import swap
from interp.experiments.kinds.sweep import sweep
from interp.experiments.kinds.transport import transport
from interp.models.demo import world

MARKUP = "a **red** circle <img src=x onerror=alert(1)> $x$ :smile: [here](http://example.org)"
STEPS, FEW = 4, 2
EXPERIMENTS = ("disrupt", "dose", "patch", "transport", "swap", "lens", "collapse")


def demo_run(model: interp.Model, folder: Path) -> interp.Run:
    """Eight rows of the demo model, with hidden states and branches: three captions and markup, two seeds each."""
    record = interp.Record(branches=True, hidden=True)
    prompts = [*(scene.caption() for scene in scenes()[:3]), MARKUP]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interp.InterpWarning)  # of the markup: words that the demo has not learnt
        return interp.trace(model, prompts, out=folder / "demo.zarr", record=record, steps=STEPS, repeats=2, batch_size=8)


def scenes() -> list[world.Scene]:
    return list(world.sample(4, seed=11))


def without_rows(store: Path, out: Path, rows: Iterable[int]) -> Path:
    """A copy of a store in which these rows are not done."""
    shutil.copytree(store, out)
    for group in ("analysis", "summary"):
        shutil.rmtree(out / group, ignore_errors=True)
    for row in rows:
        (out / "done" / "c" / str(row)).unlink()
    return out


def build(folder: Path, kinds: Sequence[str] = EXPERIMENTS) -> Path:
    """Every kind of store that a folder may hold, with experiments of these kinds."""
    folder.mkdir(parents=True, exist_ok=True)
    model = interp.load("demo")
    run = demo_run(model, folder)
    _keep_results(run, [scene.mask() for scene in scenes() for _ in range(2)])
    captions = [scene.caption() for scene in scenes()]
    interp.trace(model, captions[:2], out=folder / "other.zarr", record=interp.Record(), steps=STEPS, seed=5)
    given = {"steps": FEW, "batch_size": 8}
    doses = {"counts": [1, 4], "block": 6, "windows": ["all"], "budget": 64}
    cells = {"what": ["hidden", "massive"], "blocks": "0,3,7", "windows": 2}
    shown = {"blocks": "0,4,7", "steps_shown": "0,-1", "steps": FEW}
    made = {
        "disrupt": lambda **to: disrupt(model, captions[:2], blocks=[4], controls=1, **given, **to).run(),
        "dose": lambda **to: dose(model, captions[:2], **doses, **given, **to).run(),
        "patch": lambda **to: patch(model, captions[:2], captions[2:4], **cells, **given, **to).run(),
        "transport": lambda **to: transport(model, captions[:1], captions[1:2], strengths=[0.5, 1.0], **given, **to).run(),
        "swap": lambda **to: swap(model, captions[:2], steps=FEW, **to).run(),
        "collapse": lambda **to: collapse(model, captions[:2], counts=[1, 4], **given, **to).run(),
        "lens": lambda **to: lens(model, captions[:1], **shown, **to).run(),
    }
    for kind in kinds:
        made[kind](out=folder / f"{kind}.zarr", run=run)
    settings = ["none", "cfg:{2,4}+dg:{1,2}"]
    sweep(model, captions[:2], settings, out=folder / "sweep.zarr", steps=FEW, repeats=2).run(batch_size=8)
    _break(folder)
    return folder


def _keep_results(run: interp.Run, truth: list) -> None:
    """What `interp massive` and `interp segment` would keep."""
    import numpy as np

    from interp.analysis import massive, segmentation
    from interp.store.saved_results import write_result

    write_result(run.path, "massive", massive.find(run))
    write_result(run.path, "segmentation_score", segmentation.score(run, np.stack(truth), repeats=1))


def _break(folder: Path) -> None:
    """Unfinished, empty, foreign, truncated, unreadable stores, and a link that leads out."""
    without_rows(folder / "demo.zarr", folder / "unfinished.zarr", range(4, 8))
    without_rows(folder / "demo.zarr", folder / "empty.zarr", range(8))
    zarr.create_group(folder / "foreign.zarr")
    shutil.copytree(folder / "demo.zarr", folder / "truncated.zarr")
    for group in ("summary", "stats"):
        files = [file for file in (folder / "truncated.zarr" / group / "image" / "mean_abs" / "c").rglob("*") if file.is_file()]
        assert files
        for file in files:
            file.write_bytes(file.read_bytes()[:50])
    shutil.copytree(folder / "other.zarr", folder / "damaged.zarr")
    (folder / "damaged.zarr" / "zarr.json").write_text("{ not json")
    outside = folder.parent / "outside"
    outside.mkdir(exist_ok=True)
    shutil.copytree(folder / "other.zarr", outside / "secret.zarr", dirs_exist_ok=True)
    (folder / "link.zarr").symlink_to(outside / "secret.zarr")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
