"""The experiments' commands: cost first, pure JSON, figures, results kept, the same command resumes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from bad_inputs import run
from messages import refused

import interp
from interp.base.executor import Progress
from interp.experiments import clean as runs
from interp.experiments.kinds.lens import lens
from interp.experiments.kinds.swap import swap

LENS = ["lens-detail", "lens-sharpness", "lens-structure", "painted", "pictures"]
COMMANDS: dict[str, tuple[list[str], str, list[str]]] = {
    "disrupt": (["--prompts", "{a}", "--blocks", "1", "--controls", "1"], "structure", ["disruption", "pictures"]),
    "dose": (
        ["--prompts", "{a}", "--counts", "1", "--windows", "all", "--budget", "60"],
        "dose and response",
        ["dose", "pictures"],
    ),
    "patch": (
        ["--clean", "{a}", "--corrupted", "{b}", "--windows", "1", "--blocks", "1"],
        "patching",
        ["patching", "pictures"],
    ),
    "transport": (
        ["--source", "{a}", "--target", "{b}", "--strengths", "1"],
        "transport",
        ["pictures", "transport-latents", "transport-picture", "transport-structure"],
    ),
    "swap": (["--prompts", "{a}"], "shares", ["swap"]),
    "lens": (["--prompts", "{a}", "--without", "3"], "lens", LENS),
}


@pytest.mark.parametrize(
    "name", ["disrupt", *(pytest.param(name, marks=pytest.mark.long) for name in COMMANDS if name != "disrupt")]
)
def test_a_command_prints_json_draws_and_resumes(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a red cat\ntwo dog\n")
    (tmp_path / "b.txt").write_text("the green circle\na blue square\n")
    more, section, figures = COMMANDS[name]
    words = [name, "--model", str(tiny_folder), "--out", str(tmp_path / "e.zarr"), "--steps", "2"]
    words += [word.format(a=tmp_path / "a.txt", b=tmp_path / "b.txt") for word in more]
    if name not in ("dose", "lens"):
        words += ["--channels", "3"]
    code, _, err = run([*words, "--dry-run"])
    assert code == 0
    assert re.match(r"[\d,]+ samples? x [\d,]+ arms?: .*forwards", err), err
    assert ("pictures" in err.splitlines()[0]) == (name != "swap")
    assert not (tmp_path / "e.zarr").exists()
    code, out, err = run([*words, "--json", "--figures", str(tmp_path / "figures")])
    assert code == 0, err
    found = json.loads(out)[section]
    assert found["rows"]
    assert found["interval"]
    assert sorted(path.stem for path in (tmp_path / "figures").iterdir()) == sorted(figures)
    code, out, err = run(words)  # nothing is left to draw
    assert code == 0, err
    assert section.split()[0] in out
    code, out, _ = run(["info", str(tmp_path / "e.zarr")])
    assert code == 0
    assert name in out


@pytest.mark.long
def test_a_killed_swap_resumes_and_another_plan_is_refused(
    tiny_model: interp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, given = ["a red cat", "two dog", "the circle"], {"channels": [3], "steps": 2}
    whole = swap(tiny_model, prompts, out=tmp_path / "whole.zarr", **given).run().result("swap")

    class KilledError(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.done == 2:
            raise KilledError

    with pytest.raises(KilledError):
        swap(tiny_model, prompts, out=tmp_path / "part.zarr", **given).run(on_progress=kill)
    assert len(list((tmp_path / "part-rows").glob("*.npz"))) == 2
    with refused(interp.PlanError, "part-rows", "swap", "channels"):
        swap(tiny_model, prompts, out=tmp_path / "part.zarr", channels=[4], steps=2).run()
    drawn: list[Any] = []
    original = runs.clean_run
    monkeypatch.setattr(runs, "clean_run", lambda *a: drawn.append(a) or original(*a))
    part = swap(tiny_model, prompts, out=tmp_path / "part.zarr", **given).run().result("swap")
    assert len(drawn) == 2  # one row and its partner
    assert part["size"].equals(whole["size"])
    assert not (tmp_path / "part-rows").exists()
    again = swap(tiny_model, prompts, out=tmp_path / "part.zarr", **given).run().result("swap")
    assert len(drawn) == 2
    assert again["effect"].equals(part["effect"])


def test_lens_is_python_too(tiny_model: interp.Model, tmp_path: Path) -> None:
    made = lens(
        tiny_model, ["a red cat"], out=tmp_path / "l.zarr", blocks=[0, 3], steps_shown="0,-1", without=None, steps=3
    ).run()
    assert made.done.shape == (1, 1 + 2 * 2)
    assert "lens" in repr(made)
