"""Answers that used to be silent, and failures that used to be raw: each says what happened and what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bad_inputs import run
from messages import refused

import interp
from interp.base.prompts import read_prompts
from interp.interventions import Zero
from interp.interventions.hooks import edited
from interp.models import tiny

RED = "a red cat"


def command(*words: str, cwd: Path, optimise: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    """`interp` in a process of its own."""
    python = [sys.executable, *(["-O"] if optimise else [])]
    given = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([*python, "-m", "interp", *words], cwd=cwd, env=given, capture_output=True, text=True, check=False)


def test_a_cache_answers_for_its_own_blocks_alone(tiny_model: interp.Model) -> None:
    _, cache = tiny_model.run_with_cache(RED, steps=1)
    blocks = len(tiny_model.anatomy.blocks)
    assert np.array_equal(cache["resid_post", -1], cache["hidden", blocks - 1])
    for block in (blocks, -blocks - 1, 99, -99):
        with refused(interp.InputError, "block", f"{-blocks}..{blocks - 1}", block):
            cache["resid_post", block]
        assert ("hidden", block) not in cache
    for key in (("hidden", 1.7), ("hidden", True), ("hidden", "1"), 3, ("hidden",)):
        with refused(interp.InputError, "cache"):
            cache[key]
        assert key not in cache
    assert ("hidden", 1) in cache


def test_prompts_stay_paired(tiny_model: interp.Model, tmp_path: Path) -> None:
    """The empty prompt is a prompt: it is traced, and none is dropped."""
    images = interp.generate(tiny_model, [RED, "", "two dog"], steps=1, seeds="shared")
    assert images["prompt_text"].to_numpy().tolist() == [RED, "", "two dog"]
    with torch.no_grad():
        plain = tiny_model.pipe(
            "", num_inference_steps=1, guidance_scale=1.0, height=64, width=64, output_type="np", max_sequence_length=8,
            generator=torch.Generator().manual_seed(0),
        ).images  # fmt: skip
    assert np.abs(images["image"].sel(prompt=1).to_numpy() - (plain[0] * 255).round()).max() <= 1
    for given in ({RED: 1}, {RED, "two dog"}, 3, None):
        with refused(interp.InputError, "prompts", "list"):
            interp.generate(tiny_model, given, steps=1)  # type: ignore[arg-type]
    for name, text in (
        ("p.txt", f'# comment\n{RED}\n\n""\n  \ntwo dog\n'),
        ("p.tsv", f"prompt\tn\n{RED}\t1\n\t2\ntwo dog\t3\n"),
        ("p.jsonl", f'{{"prompt": "{RED}"}}\n\n{{"prompt": ""}}\n{{"prompt": "two dog"}}\n'),
    ):
        (tmp_path / name).write_text(text)
        assert read_prompts(tmp_path / name) == [RED, "", "two dog"], name
    (tmp_path / "short.csv").write_text(f"n,prompt\n1,{RED}\n2\n")
    with refused(interp.InputError, "short.csv", "line 3", "prompt"):
        read_prompts(tmp_path / "short.csv")


def test_a_folder_named_like_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.build("sd3", "demo", blocks=2)
    with pytest.warns(interp.InterpWarning, match=r"catalog's model.*\./demo"):
        assert interp.load("demo").anatomy.channels == 96
    for folder in ("./demo", Path("demo"), str(tmp_path / "demo")):
        assert interp.load(folder).anatomy.channels == 32


def test_memory_is_no_place_for_a_command(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text(RED)
    words = ["trace", "--model", "demo", "--prompts", str(tmp_path / "p.txt"), "--steps", "1", "--out"]
    for out in ("memory://run.zarr", "memory:/run.zarr"):
        code, _, err = run([*words, out])
        assert code == 2
        assert "memory://" in err
        assert "folder" in err


def test_home_is_expanded(tiny_model: interp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    interp.trace(tiny_model, [RED], out="~/runs/run.zarr", steps=1)
    assert (tmp_path / "runs" / "run.zarr" / "zarr.json").is_file()
    assert interp.open_run("~/runs/run.zarr").rows_done == 1
    assert not (tmp_path / "~").exists()
    code, _, err = run(["massive", "~/runs/run.zarr", "--figures=~/figures", "--json"])
    assert code == 0, err
    assert list((tmp_path / "figures").iterdir())
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda model: interp.trace(model, [RED], out=None), ("path", "None")),  # type: ignore[arg-type]
        (lambda model: interp.trace(model, [RED], out="x.zarr", interventions=["x"]), ("interventions", "Zero", "'x'")),
        (lambda model: interp.trace(model.pipe, [RED], out="x.zarr"), ("model", "interp.wrap")),
        (lambda model: interp.generate(3, [RED]), ("model", "int")),  # type: ignore[arg-type]
        (
            lambda model: interp.generate(model, [RED], interventions=Zero(channels=[1], blocks=0)),
            ("interventions", "list", "Zero"),
        ),
        (lambda model: edited(model, Zero(channels=[1], blocks=0)).__enter__(), ("interventions", "list")),  # type: ignore[arg-type]
        (lambda model: edited(model.pipe, []).__enter__(), ("edited", "interp.wrap")),
        (lambda model: model.run_with_cache(RED, 3), ("names_filter", "pattern", "3")),
        (lambda model: interp.generate(model, [RED], settings=["a"]), ("settings", "dict")),
        (lambda model: interp.generate(model, [RED], negative_prompt=3, guidance="cfg:4"), ("negative_prompt", "3")),
        (lambda model: interp.generate(model, np.array(RED)), ("prompts", "list")),
        (lambda model: interp.massive.find("run.zarr"), ("run", "interp.open_run")),  # type: ignore[arg-type]
        (lambda model: interp.attribution.decompose("run.zarr"), ("run", "interp.open_run")),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments_get_a_rule(call: Any, says: tuple[str, ...], tiny_model: interp.Model) -> None:
    with refused(interp.InputError, *says):
        call(tiny_model)


def test_python_without_assertions_is_one_line(tmp_path: Path) -> None:
    done = command("models", cwd=tmp_path, optimise=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "-O" in done.stderr


def test_the_users_disk_is_no_defect_of_ours(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling.zarr").symlink_to("nowhere/there")
    (tmp_path / "p.txt").write_text(RED)
    for out in ("loop/run.zarr", "dangling.zarr"):
        done = command("trace", "--model", "demo", "--prompts", "p.txt", "--steps", "1", "--out", out, cwd=tmp_path)
        assert done.returncode in (1, 2), done.stderr
        assert "defect" not in done.stderr
        assert out.split("/")[0] in done.stderr


def test_a_terminal_of_few_characters(tmp_path: Path) -> None:
    done = command("models", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "defect" not in done.stderr


def test_a_read_only_store_names_the_option(tiny_run: interp.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = shutil.copytree(tiny_run.path, tmp_path / "run.zarr")

    def read_only(*given: Any, **named: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(store))

    monkeypatch.setattr("xarray.Dataset.to_zarr", read_only)
    code, out, err = run(["massive", str(store)])
    assert code == 1
    assert "--no-save" in err
    assert "massive" in out
    assert run(["massive", str(store), "--no-save"])[0] == 0


def test_a_merge_onto_a_full_disk_is_short(tiny_run: interp.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = shutil.copytree(tiny_run.path, tmp_path / "one.zarr")

    def full(*given: Any, **named: Any) -> Any:
        raise shutil.Error([(f"a/{n}", f"b/{n}", "[Errno 28] No space left on device") for n in range(500)])

    monkeypatch.setattr(shutil, "copytree", full)
    code, _, err = run(["merge", str(one), "--out", str(tmp_path / "all.zarr")])
    assert code == 1
    assert "No space left" in err
    assert len(err) < 600


def test_a_script_without_a_guard_starts_no_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import interp\nprint('once')\n"
        f"interp.trace('demo', ['a red circle'], out={str(tmp_path / 'run.zarr')!r}, steps=1, through=interp.Workers(2))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.count("once") == 1
    assert "__name__" in done.stderr.splitlines()[-1]


def test_flow_sigmas_of_another_scheduler(tmp_path: Path) -> None:
    """FLUX leaves noise levels to a scheduler that makes flow sigmas: the plan has those that it uses."""
    from diffusers import UniPCMultistepScheduler

    model = interp.load(tiny.build("flux", tmp_path / "flux"))
    model.pipe.scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    run = interp.trace(model, [RED], out=tmp_path / "run.zarr", steps=2)
    assert run.rows_done == 1
    assert run.plan["scheduler"]["class"] == "UniPCMultistepScheduler"


def test_a_variant_of_the_weights(tmp_path: Path) -> None:
    folder = tiny.build("sd3", tmp_path / "sd3", blocks=2)
    for path in folder.rglob("*.safetensors"):
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    with refused(interp.ModelError, "fp16", "--variant"):
        interp.load(folder)
    assert interp.load(folder, variant="fp16").anatomy.channels == 32


def test_duplicate_arms_get_a_rule(tiny_model: interp.Model, tmp_path: Path) -> None:
    from interp.experiments.draw import Arm
    from interp.experiments.kind import Kind

    def design(request: Any) -> Any:
        return request.drawing(request.prepare(request.options.prompts), [Arm("same"), Arm("same")], {})

    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Options:
        prompts: Any

    with refused(interp.InputError, "arms", "'same'"):
        Kind("twice", "Draw an arm twice.", Options, design)(tiny_model, [RED], out=tmp_path / "twice.zarr")
