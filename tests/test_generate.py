"""Generated pictures as files, and sweeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bad_inputs import run
from messages import names, refused
from PIL import Image

import interp
from interp.experiments.generation import BySettings
from interp.experiments.kinds.sweep import expand, sweep
from interp.experiments.save import read_recipe, sheet
from interp.guidance import ClassifierFree, DetailGuidance
from interp.tracing.prepare import prepare


def test_pictures_carry_their_recipe(tiny_folder: Path, tmp_path: Path) -> None:
    words = [
        "generate",
        "--model",
        str(tiny_folder),
        "--prompt",
        "a red cat",
        "--prompt",
        "two dög",
        "--steps",
        "2",
        "--seeds",
        "1,4",
    ]
    guided = ["--guidance", "cfg:3+dg:1:channels=3:block=1", "--negative-prompt", "photo"]
    code, out, err = run([*words, *guided, "--out", str(tmp_path / "g")])
    assert code == 0, err
    files = [Path(line) for line in out.split()]
    assert [file.name for file in files] == [
        "00000-seed1.png",
        "00001-seed4.png",
        "00002-seed1.png",
        "00003-seed4.png",
        "sheet.png",
    ]
    recipe = read_recipe(files[3])
    assert (recipe["prompt"], recipe["seed"]) == ("two dög", 4)
    assert [one["method"] for one in recipe["plan"]["guidance"]] == ["cfg", "dg"]
    assert recipe["plan"]["negative_prompt"] == "photo"
    assert recipe["plan"]["seeds"] == [1, 4]
    model = interp.load(tiny_folder)
    guidance = ClassifierFree(3) + DetailGuidance(channels=3, block=1, scale=1)
    again = interp.generate(model, ["a red cat", "two dög"], seeds=[4], steps=2, guidance=guidance, negative_prompt="photo")
    np.testing.assert_array_equal(np.asarray(Image.open(files[3])), again["image"].to_numpy()[1])
    listed = json.loads((tmp_path / "g" / "recipe.json").read_text())["pictures"]
    assert [one["file"] for one in listed] == [file.name for file in files[:-1]]
    wide, tall = sheet(again).size
    assert wide > 64
    assert tall > 2 * 64
    with refused(interp.InputError, files[-1], "recipe", "interp generate"):
        read_recipe(files[-1])


@pytest.mark.parametrize(
    ("words", "same"),
    [([], False), (["--seeds", "own"], False), (["--seeds", "shared", "--seed", "3"], True), (["--seeds", "3"], True)],
)
def test_seeds_of_a_command(words: list[str], same: bool, tiny_folder: Path, tmp_path: Path) -> None:
    given = ["generate", "--model", str(tiny_folder), "--prompt", "a red cat", "--prompt", "two dog", "--steps", "1"]
    code, out, err = run([*given, *words, "--out", str(tmp_path / "g")])
    assert code == 0, err
    seeds = [read_recipe(Path(line))["seed"] for line in out.split()[:-1]]
    model = interp.load(tiny_folder)
    own = interp.generate(model, ["a red cat", "two dog"], steps=1)["seed"].to_numpy().tolist()
    assert len(set(own)) == 2
    assert seeds == ([3, 3] if same else own)


def test_sequential_branches_draw_the_same(tiny_folder: Path, tmp_path: Path) -> None:
    words = ["generate", "--model", str(tiny_folder), "--prompt", "a red cat", "--steps", "2"]
    for branches in ("rows", "sequential"):
        given = ["--guidance", "cfg:3+dg:1:channels=3:block=1", "--branches", branches, "--out", str(tmp_path / branches)]
        code, _, err = run([*words, *given])
        assert code == 0, err
    files = [next((tmp_path / name).glob("00000-seed*.png")) for name in ("rows", "sequential")]
    assert files[0].name == files[1].name
    both = [np.asarray(Image.open(file)).astype(int) for file in files]
    assert np.abs(both[0] - both[1]).max() <= 1


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ([], ("--prompt",)),
        (["--prompt", "a cat", "--seeds", "x"], ("seeds", "x")),
        (["--prompt", "a cat", "--branches", "trees"], ("branches", "rows, sequential", "trees")),
        (["--prompt", "a cat", "--guidance", "cfg:nan"], ("scale", "cfg", "nan")),
        (["--prompt", "a cat", "--guidance", "dg:1:channels=99:block=1"], ("channels", "0..31", 99)),
        (["--prompt", "a cat", "--guidance", "dg:1:channels=3:block=9"], ("blocks", "0..3", 9)),
        (["--prompt", "a cat", "--guidance", "dg:1"], ("guidance", "dg:SCALE", "DetailGuidance.auto(run)")),
        (["--prompt", "a cat", "--guidance", "pag:1"], ("pag", "blocks")),
    ],
)
def test_bad_input_gets_one_clear_line(more: list[str], named: tuple[object, ...], tiny_folder: Path, tmp_path: Path) -> None:
    code, out, err = run(["generate", "--model", str(tiny_folder), "--out", str(tmp_path / "g"), "--steps", "1", *more])
    assert (code, out) == (2, "")
    assert names(err, *named) == []
    assert err.count("\n") == 1


def test_braces_are_all_combinations() -> None:
    assert expand("none") == [("none", ())]
    assert expand("cfg:{1,2}+dg:{0.5,1}:block=3") == [
        ("cfg:1+dg:0.5:block=3", ("1", "0.5")),
        ("cfg:1+dg:1:block=3", ("1", "1")),
        ("cfg:2+dg:0.5:block=3", ("2", "0.5")),
        ("cfg:2+dg:1:block=3", ("2", "1")),
    ]
    with refused(interp.InputError, "braces", "{1,,2}"):
        expand("cfg:{1,,2}")


def test_a_sweep_is_what_generate_draws_and_goes_on(tiny_model: interp.Model, tmp_path: Path) -> None:
    prompts = ["a red cat", "two dog", "the circle"]
    settings = ["none", "cfg:{2,3}", "cfg:2+dg:{1,2}:channels=3:block=1"]
    prepared = sweep(tiny_model, prompts, settings, out=tmp_path / "s.zarr", steps=2)
    assert prepared.arms[-1].name == "cfg:2+dg:2:channels=3:block=1"
    drawn = prepared.run(batch_size=2)
    assert drawn.done.all()
    for number, text in enumerate(arm.name for arm in prepared.arms):
        expected = interp.generate(tiny_model, prompts, steps=2, batch_size=2, guidance=None if text == "none" else text)
        np.testing.assert_array_equal(drawn.pictures(number)[1], expected["image"].to_numpy())
    found = drawn.result("sweep")
    assert found.sizes == {"setting": 5, "measure": 4, "won": 2}
    np.testing.assert_array_equal(found["over_first"].sel(measure="sharpness").isel(setting=0), 0.0)
    drawn.attributes  # noqa: B018
    again = sweep(tiny_model, prompts, settings, out=tmp_path / "s.zarr", steps=2).run(
        on_progress=lambda p: pytest.fail("drawn again")
    )
    assert again.done.all()
    with refused(interp.PlanError, "parameters", tmp_path / "s.zarr"):
        sweep(tiny_model, prompts, ["none", "cfg:9"], out=tmp_path / "s.zarr", steps=2).run()


def test_forked_branches_cost_what_the_paper_would_have_them(tiny_model: interp.Model) -> None:
    """(N - m - 1) / N of a forward for a branch that forks at block m's output."""
    for block in range(4):
        one = prepare(tiny_model, ["a cat"], steps=1, guidance=DetailGuidance(channels=3, block=block, scale=1))
        both = prepare(
            tiny_model, ["a cat"], steps=1, guidance=ClassifierFree(2) + DetailGuidance(channels=3, block=block, scale=1)
        )
        forwards = BySettings((one, both), 1).forwards(np.eye(2, dtype=bool))
        assert forwards == 1 + (4 - block - 1) / 4 + 2 + (4 - block - 1) / 4


def test_settings_that_differ_in_one_value_are_one_curve(tiny_model: interp.Model, tmp_path: Path) -> None:
    """The swept value may stand elsewhere in the text as well: the place that the settings share is meant."""
    from interp.figures import guidance as figures

    settings = ["none", "dg:1:channels=3:block={0,1,2}", "cfg:{2,3}", "apg:4"]
    drawn = sweep(tiny_model, ["a red cat", "two dog"], settings, out=tmp_path / "s.zarr", steps=1).run()
    found = drawn.result("sweep")
    assert figures._curves(found) == {
        "dg:1:channels=3:block=x": {0.0: 1, 1.0: 2, 2.0: 3},
        "cfg:x": {2.0: 4, 3.0: 5},
        "apg:4": {"apg:4": 6},
    }
    assert figures.sweep(found).data
    assert figures.gallery(drawn, [0, 1], [0, 1, 2]).data
