"""Stores made by an earlier version open, continue and give the same numbers; every command's JSON is what it was.

`before/stores.zip` is of 2026-11-28 (commit 4a018e2), before experiments were defined once. That version ran the commands
of `before/commands.json` in one folder, the trace first; then all rows but the first were taken out of the experiments' stores
with their results, as if they had been killed there, the edited runs out of `govern`, and a second swap was stopped after its
first row. The experiment transport has more arms now, so the test draws it again.

`before/json` was of the same day. Since 2026-11-29 it has other intervals and verdicts (docs/statistics.md), colourfulness in
0..255, the recovery of a patch as `patching.Ways`, no channel that is massive in the last block alone, and columns of tokens
and steps; features are matched with --protocol tokens, the only one there was; and statistics are written
without compression, which changes the bytes of a dry run; sizes are listed for each stream. All other numbers are as they were.
"""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from bad_inputs import run

import interp
from interp.store.experiment import open_experiment

HERE = Path(__file__).parent / "before"
LISTED = json.loads((HERE / "commands.json").read_text())
EXPERIMENTS = LISTED["experiments"]
COMMANDS = {**EXPERIMENTS, **LISTED["others"]}
NOT_COMPARED = {"created", "provenance", "file", "bytes"}
"""What a run's place and day say."""
ADDED = {"/plan/sampled", "/plan/state", "/patching/left_out", "/transport/left_out"}
"""Fields that plans have had since: the weights' former hash, and the pipeline's state."""
pytestmark = pytest.mark.filterwarnings("ignore::interp.InterpWarning")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before")
    with zipfile.ZipFile(HERE / "stores.zip") as archive:
        archive.extractall(folder)
    shutil.copytree(folder / "run.zarr", folder / "other.zarr")
    return folder


def same(found: Any, wanted: Any, where: str = "") -> list[str]:
    """Places in which two documents differ: keys, texts, or numbers by more than rounding does to pictures of 8 bits."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        keys = sorted((set(wanted) | set(found)) - NOT_COMPARED)
        lacking = [f"{where}/{key}" for key in keys if (key in wanted) != (key in found) and f"{where}/{key}" not in ADDED]
        return lacking + [
            line for key in keys if key in wanted and key in found for line in same(found[key], wanted[key], f"{where}/{key}")
        ]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [line for n, pair in enumerate(zip(found, wanted, strict=True)) for line in same(*pair, f"{where}/{n}")]
    if isinstance(wanted, float) and isinstance(found, float | int):
        return [] if math.isclose(found, wanted, rel_tol=5e-3, abs_tol=2e-4) else [f"{where}: {found} was {wanted}"]
    if where.endswith("/weights") and str(found).startswith("full:") and str(wanted).startswith("sha256:"):
        return []  # the one exception: of a run that begins now, all weights are hashed
    return [] if found == wanted else [f"{where}: {found!r} was {wanted!r}"]


@pytest.mark.parametrize("name", COMMANDS)
def test_json_is_what_it_was(name: str, stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of experiments: a store of which one row is left is gone on with."""
    monkeypatch.chdir(stores)
    if name in ("info-experiment", "score"):
        assert run(COMMANDS["sweep"].split())[0] == 0
    code, out, err = run(COMMANDS[name].split())
    assert code == 0, err
    found = json.loads(out.replace(str(Path(interp.__file__).parent), "INTERP"))
    assert same(found, json.loads((HERE / "json" / f"{name}.json").read_text())) == []


@pytest.mark.parametrize("kind", sorted(set(EXPERIMENTS) - {"govern", "swap", "transport"}))
def test_killed_experiments_were_half_drawn(kind: str, tmp_path: Path) -> None:
    """What the test above goes on with."""
    with zipfile.ZipFile(HERE / "stores.zip") as archive:
        name = next(file for file in archive.namelist() if file.startswith(kind)).split("/")[0]
        archive.extractall(tmp_path, [file for file in archive.namelist() if file.startswith(name)])
    found = open_experiment(tmp_path / name)
    assert found.done[0].all()
    assert not found.done[1:].any()
    assert found.results == []


def test_a_killed_swap_goes_on(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stores)
    assert (stores / "swap-killed-rows" / "00000.npz").is_file()
    command = COMMANDS["swap"].replace("swap.zarr", "swap-killed.zarr")
    code, out, err = run(command.split())
    assert code == 0, err
    assert not (stores / "swap-killed-rows").exists()
    # `swap.json` shows the result that the finished store holds, with the intervals of its day
    assert same(json.loads(out), json.loads((HERE / "json" / "swap-killed.json").read_text())) == []
