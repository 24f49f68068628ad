"""Does alpha govern? On planted models the answer is known: at the planted gate, nowhere else, and not without its branch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from bad_inputs import run
from messages import names

import interp
from interp.experiments.kinds.govern import ARMS, govern
from interp.testing import plant


def check_planted_verdict(found: xr.Dataset) -> None:
    """Channels 4 and 9 hang on alpha.attn of block 1."""
    assert found.attrs["channels"] == [4, 9]
    assert not set(found.attrs["ordinary"]) & {4, 9}
    removed = found["ratio"].sel(arm="removed")
    assert (removed.sel(block=1, gate="attn") < 0.1).all()
    elsewhere = removed.sel(measured="own").where(found["block"] > 1)
    others = elsewhere.stack(place=["block", "gate"]).dropna("place")
    assert others.size > 0
    assert (others > 0.9).all()
    assert found["over_median"].sel(arm="raised_ordinary", block=1, gate="attn") < 10  # alpha alone makes no massive channel
    assert (found["ratio_low"] <= found["ratio"]).where(found["ratio"].notnull(), True).all()


@pytest.mark.full
@pytest.mark.parametrize("family", ["sd3", "flux", "dit"])
def test_the_planted_gate_governs_and_no_other(family: str, tmp_path: Path) -> None:
    planted = plant(family, channels=(4, 9), block=1, gate="attn", seed=3)
    found = govern(planted.model, planted.prompts(4), out=tmp_path / "govern", steps=2, batch_size=4).run().result("govern")
    check_planted_verdict(found)


@pytest.fixture(scope="module")
def clamped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], xr.Dataset]:
    """A planted model's folder, four prompts, and the experiment at the planted block and the next, in FOLDER/govern."""
    folder = tmp_path_factory.mktemp("govern")
    planted = plant("flux", channels=(4, 9), block=1, gate="attn", seed=3)
    planted.save(folder / "model")
    texts = planted.prompts(4)
    found = (
        govern(folder / "model", texts, out=folder / "govern", channels=[4, 9], blocks=[1, 2], steps=2, batch_size=4)
        .run()
        .result("govern")
    )
    return folder, texts, found


def test_the_planted_gate_governs_its_block_and_not_the_next(clamped: tuple[Path, list[str], xr.Dataset]) -> None:
    check_planted_verdict(clamped[2])


def test_the_ratio_is_that_of_two_traces(clamped: tuple[Path, list[str], xr.Dataset]) -> None:
    folder, _, found = clamped
    out, here = folder / "govern", {"block": 1, "stream": "image"}
    before, after = (interp.open_run(out / name) for name in ("unedited.zarr", "block.1-mlp-removed.zarr"))
    assert (after.gates["alpha"].sel(here).sel(gate="mlp", channel=[4, 9]) == 0).all()
    sizes = [r.stats["mean_abs"].sel(here).sel(channel=[4, 9]).mean("step").to_numpy() for r in (before, after)]
    expected = (sizes[1] / sizes[0]).mean()
    np.testing.assert_allclose(found["ratio"].sel(arm="removed", block=1, gate="mlp", measured="own"), expected, rtol=1e-5)
    level = np.abs(before.gates["alpha"].sel(here).sel(gate="attn", channel=[4, 9]).mean("prompt")).mean("channel")
    raised = interp.open_run(out / "block.1-attn-raised_ordinary.zarr").gates["alpha"]
    there = np.abs(raised.sel(here).sel(gate="attn", channel=found.attrs["ordinary"])).transpose("prompt", "channel", "step")
    np.testing.assert_allclose(there, np.broadcast_to(level, there.shape), rtol=1e-5)


def test_an_interrupted_experiment_resumes(clamped: tuple[Path, list[str], xr.Dataset], tmp_path: Path) -> None:
    folder, texts, found = clamped
    out = tmp_path / "govern"
    shutil.copytree(folder / "govern", out)
    shutil.rmtree(out / "block.2-attn-removed.zarr")
    stamp = (out / "unedited.zarr" / "zarr.json").stat().st_mtime_ns
    again = (
        govern(folder / "model", texts, out=out, channels=[4, 9], blocks=[1, 2], steps=2, batch_size=4).run().result("govern")
    )
    assert (out / "block.2-attn-removed.zarr").exists()
    np.testing.assert_allclose(again["ratio"], found["ratio"], rtol=1e-5)
    assert (out / "unedited.zarr" / "zarr.json").stat().st_mtime_ns == stamp


def test_the_command_prints_its_cost_first_and_keeps_the_result(
    clamped: tuple[Path, list[str], xr.Dataset], tmp_path: Path
) -> None:
    folder, texts, _ = clamped
    (tmp_path / "prompts.txt").write_text("\n".join(texts))
    shutil.copytree(folder / "govern", tmp_path / "g")
    words = ["govern", "--model", str(folder / "model"), "--prompts", str(tmp_path / "prompts.txt"), "--out"]
    code, out, err = run([*words, str(tmp_path / "g"), "--channels", "4,9", "--blocks", "1-2", "--steps", "2", "--json"])
    assert code == 0, err
    cost = err.splitlines()[0]
    assert names(cost, 4, 128, "forwards") == [], "prompts, and forwards of 16 runs of 2 steps"
    rows = json.loads(out)["govern"]["rows"]
    assert [row["alpha"] for row in rows] == [arm.replace("_", " ") for arm in ARMS] * 3
    assert interp.open_experiment(tmp_path / "g.zarr").result("govern")["ratio"].shape == (5, 2, 2, 2)


def test_a_model_without_massive_channels_needs_some(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red cat\na dog\n")
    words = ["govern", "--model", str(tiny_folder), "--prompts", str(tmp_path / "prompts.txt")]
    code, _, err = run([*words, "--out", str(tmp_path / "h"), "--steps", "1"])
    assert code == 2
    assert names(err, "channels") == []
