"""Does alpha govern? On planted models the answer is known: at the planted gate, nowhere else, and not without its branch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from bad_inputs import run
from messages import names

import interp
from interp.experiments.govern import clamp_alpha
from interp.testing import plant


@pytest.mark.parametrize(
    ("family", "blocks"),
    [("sd3", [1, 2]), *(pytest.param(family, None, marks=pytest.mark.full) for family in ("sd3", "flux", "dit"))],
)
def test_the_planted_gate_governs_and_no_other(family: str, blocks: list[int] | None, tmp_path: Path) -> None:
    planted = plant(family, channels=(4, 9), block=1, gate="attn", seed=3)
    prompts = planted.prompts(2 if blocks else 3)
    found = clamp_alpha(planted.model, prompts, out=tmp_path / "govern", blocks=blocks, steps=2, batch_size=3)
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


def test_the_ratio_is_that_of_two_traces_and_an_interrupted_experiment_resumes(
    tiny_model: interp.Model, tmp_path: Path
) -> None:
    out, prompts = tmp_path / "govern", ["a red cat", "two dog"]
    found = clamp_alpha(tiny_model, prompts, out=out, channels=[5], blocks=[2], steps=2)
    before, after = (interp.open_run(out / name) for name in ("original.zarr", "block.2-mlp-removed.zarr"))
    assert (after.gates["alpha"].sel(block=2, stream="image", gate="mlp", channel=5) == 0).all()
    sizes = [r.stats["mean_abs"].sel(stream="image", block=2, channel=5).mean("step").to_numpy() for r in (before, after)]
    expected = (sizes[1] / sizes[0]).mean()
    np.testing.assert_allclose(found["ratio"].sel(arm="removed", block=2, gate="mlp", measured="own"), expected, rtol=1e-5)
    level = np.abs(before.gates["alpha"].sel(block=2, stream="image", gate="attn", channel=5).mean("prompt"))
    raised = interp.open_run(out / "block.2-attn-raised_ordinary.zarr").gates["alpha"]
    there = raised.sel(block=2, stream="image", gate="attn", channel=found.attrs["ordinary"])
    np.testing.assert_allclose(np.abs(there).squeeze("channel"), np.broadcast_to(level, (2, 2)), rtol=1e-5)
    shutil.rmtree(out / "block.2-mlp-removed.zarr")
    stamp = (out / "original.zarr" / "zarr.json").stat().st_mtime_ns
    again = clamp_alpha(tiny_model, prompts, out=out, channels=[5], blocks=[2], steps=2)
    np.testing.assert_allclose(again["ratio"], found["ratio"], rtol=1e-5)
    assert (out / "original.zarr" / "zarr.json").stat().st_mtime_ns == stamp


def test_the_command_prints_its_cost_first_and_keeps_the_result(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red cat\na dog\n")
    words = ["govern", "--model", str(tiny_folder), "--prompts", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "g")]
    code, out, err = run([*words, "--channels", "3", "--blocks", "1", "--steps", "1", "--json"])
    assert code == 0, err
    assert names(err, 6, 4) == [], "arms and blocks of the cost"
    assert err.index("6") < err.index("4")
    rows = json.loads(out)["govern"]["rows"]
    assert [row["alpha"] for row in rows] == ["removed", "removed ordinary", "raised ordinary"] * 2
    assert interp.open_run(tmp_path / "g" / "original.zarr").result("govern")["ratio"].shape == (3, 1, 2, 2)
    code, _, err = run([*words[:-1], str(tmp_path / "h"), "--steps", "1"])
    assert code == 2
    assert names(err, "channels", "interp massive") == []
