"""Real stores of the demo model, whole and broken, for the dashboard's tests: `python tests/dashboard_stores.py FOLDER`."""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path

import zarr

import interp
from interp.experiments.collapse import collapse
from interp.experiments.disrupt import disrupt
from interp.experiments.dose import dose
from interp.experiments.lens import lens
from interp.experiments.patch import patch
from interp.experiments.swap import swap
from interp.experiments.sweep import sweep
from interp.experiments.transport import transport
from interp.models.demo import world

MARKUP = "a **red** circle <img src=x onerror=alert(1)> $x$ :smile: [here](http://example.org)"
STEPS = 4


def build(folder: Path) -> Path:
    """Every kind of store that a folder may hold."""
    folder.mkdir(parents=True, exist_ok=True)
    model = interp.load("demo")
    scenes = list(world.sample(4, seed=11))
    captions = [scene.caption() for scene in scenes]
    record = interp.Record(branches=True, hidden=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interp.InterpWarning)  # of the markup: words that the demo has not learnt
        prompts = [*captions[:3], MARKUP]
        run = interp.trace(model, prompts, out=folder / "demo.zarr", record=record, steps=STEPS, repeats=2, batch_size=8)
    _keep_results(run, [scene.mask() for scene in [*scenes[:3], scenes[3]] for _ in range(2)])
    interp.trace(model, captions[:2], out=folder / "other.zarr", record=interp.Record(), steps=STEPS, seed=5)
    given = {"steps": STEPS, "batch_size": 8}
    disrupt(model, captions[:2], out=folder / "disrupt.zarr", run=run, blocks=[4], **given).run()
    dose(model, captions[:2], out=folder / "dose.zarr", run=run, counts=[1, 4], windows=["all"], budget=64, **given).run()
    pairs = {"clean": captions[:2], "corrupted": captions[2:4]}
    patch(model, **pairs, out=folder / "patch.zarr", run=run, blocks="0,3,7", windows=2, **given).run()
    transport(model, captions[:1], captions[1:2], out=folder / "transport.zarr", run=run, strengths=[0.5, 1.0], **given).run()
    swap(model, captions[:2], out=folder / "swap.zarr", run=run, steps=STEPS)
    collapse(model, captions[:2], out=folder / "collapse.zarr", run=run, counts=[1, 4], **given).run()
    lens(model, captions[:1], out=folder / "lens.zarr", run=run, blocks="0,4,7", steps_shown="0,3", steps=STEPS)
    settings = ["none", "cfg:{2,4}+dg:{1,2}"]
    sweep(model, captions[:2], settings, out=folder / "sweep.zarr", steps=STEPS, repeats=2).run(batch_size=4)
    _break(folder)
    return folder


def _keep_results(run: interp.Run, truth: list) -> None:
    """What `interp massive` and `interp segment` would keep."""
    import numpy as np

    from interp.analysis import massive, segmentation
    from interp.store.results import write_result

    write_result(run.path, "massive", massive.find(run))
    write_result(run.path, "segmentation_score", segmentation.score(run, np.stack(truth)))


def _break(folder: Path) -> None:
    """Unfinished, empty, foreign, truncated, unreadable stores, and a link that leads out."""
    for name, rows in (("unfinished", (4, 5, 6, 7)), ("empty", range(8))):
        shutil.copytree(folder / "demo.zarr", folder / f"{name}.zarr")
        shutil.rmtree(folder / f"{name}.zarr" / "analysis")
        shutil.rmtree(folder / f"{name}.zarr" / "summary")
        for row in rows:
            (folder / f"{name}.zarr" / "done" / "c" / str(row)).unlink()
    zarr.create_group(folder / "foreign.zarr")
    shutil.copytree(folder / "demo.zarr", folder / "truncated.zarr")
    for shard in (folder / "truncated.zarr" / "summary" / "mean_abs" / "c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(shard.read_bytes()[:50])
    for shard in (folder / "truncated.zarr" / "stats" / "mean_abs" / "c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(shard.read_bytes()[:50])
    shutil.copytree(folder / "other.zarr", folder / "damaged.zarr")
    (folder / "damaged.zarr" / "zarr.json").write_text("{ not json")
    outside = folder.parent / "outside"
    outside.mkdir(exist_ok=True)
    shutil.copytree(folder / "other.zarr", outside / "secret.zarr", dirs_exist_ok=True)
    (folder / "link.zarr").symlink_to(outside / "secret.zarr")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
