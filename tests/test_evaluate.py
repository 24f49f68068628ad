"""Evaluation: galleries from stores and folders, the demo's scorer on pictures with known faults, presets end to end."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from bad_inputs import run as command
from messages import names, refused
from PIL import Image
from scipy import ndimage
from weights_made import clip_folder

import interp
from interp.base.errors import InputError
from interp.evaluation.demo_scorer import DemoScorer
from interp.evaluation.gallery import Gallery, of_experiment, of_folders, of_run
from interp.evaluation.recipes import RECIPES, recipe, settings
from interp.evaluation.scorer import Measure, Plain
from interp.evaluation.scoring import evaluate
from interp.guidance.presets import PRESETS
from interp.models.demo import world
from interp.store.schema import Array


def gallery(**changed: Array) -> tuple[Gallery, list[world.Scene]]:
    """Real pictures of twelve scenes, and the same changed."""
    scenes = list(world.sample(12, 77))
    real = np.stack([scene.picture() for scene in scenes])
    stacks = {"real": real, **changed}
    names = tuple(stacks)
    prompts = tuple(scene.caption() for scene in scenes)
    return Gallery(names, prompts, tuple(range(12)), lambda number: stacks[names[number]], "made by hand"), scenes


def real_pictures() -> Array:
    return np.stack([scene.picture() for scene in world.sample(12, 77)])


@pytest.fixture(scope="module")
def scored() -> object:
    real = real_pictures()
    blurred = ndimage.gaussian_filter(real.astype(np.float32), 1.0, axes=(1, 2)).round().astype(np.uint8)
    made, _ = gallery(blurred=blurred, shifted=np.roll(real, 1, axis=0))
    return evaluate(made, [DemoScorer()])


def test_blur_loses_fidelity_and_keeps_identity(scored: object) -> None:
    blurred = scored.sel(setting="blurred")  # type: ignore[attr-defined]
    assert float(scored["value"].sel(setting="real", measure="semantics")) > 0.98  # type: ignore[index]
    assert str(blurred["verdict"].sel(measure="spectrum").values) == "worse"
    assert str(blurred["verdict"].sel(measure="grain").values) == "worse"
    assert float(blurred["value"].sel(measure="sharpness")) < -1
    assert str(blurred["verdict"].sel(measure="semantics").values) != "worse"


def test_another_prompts_picture_loses_identity_and_keeps_the_set(scored: object) -> None:
    shifted = scored.sel(setting="shifted")  # type: ignore[attr-defined]
    assert str(shifted["verdict"].sel(measure="semantics").values) == "worse"
    assert float(shifted["value"].sel(measure="semantics")) < 0.6
    real = scored["set_value"].sel(setting="real")  # type: ignore[index]
    assert np.allclose(shifted["set_value"], real), "the same pictures, whatever they were asked to be"
    distance = scored["set_value"].sel(set_measure="judge Frechet distance")  # type: ignore[index]
    assert float(distance.sel(setting="blurred")) > float(distance.sel(setting="real"))


def test_numbers_are_means_of_their_pictures(scored: object) -> None:
    scorer, (made, _) = DemoScorer(), gallery()
    by_hand = scorer.pictures(made.read(0), made.prompts)
    for name in ("semantics", "texture", "spectrum", "sharpness", "grain"):
        assert float(scored["value"].sel(setting="real", measure=name)) == pytest.approx(float(by_hand[name].mean()))  # type: ignore[index]


def test_plain_scorer_needs_no_world() -> None:
    real = real_pictures()
    made, _ = gallery(grey=np.repeat(real.mean(-1, keepdims=True), 3, -1).astype(np.uint8))
    found = evaluate(made, [Plain(real)])
    assert float(found["value"].sel(setting="grey", measure="saturation")) == pytest.approx(0, abs=1e-9)
    assert str(found["verdict"].sel(setting="grey", measure="colourfulness").values) == "worse"
    assert found.sizes["set_measure"] == 0


def test_prompts_of_another_world_are_refused() -> None:
    stack = np.zeros((1, 64, 64, 3), np.uint8)
    made = Gallery(("x",), ("an oil painting of Venice",), (0,), lambda number: stack, "by hand")
    with refused(InputError, "prompt", "an oil painting of Venice", "a large red circle in the center"):
        evaluate(made, [DemoScorer()])


def test_one_picture_gives_numbers_and_no_interval() -> None:
    made, _ = gallery()
    found = evaluate(made.part([0]), [Plain()])
    assert np.isfinite(found["value"]).all()
    assert np.isnan(found["low"]).all()


def test_one_picture_is_no_set() -> None:
    made, _ = gallery()
    found = evaluate(made.part([0]), [DemoScorer()])
    assert float(found["value"].sel(measure="texture").squeeze()) == 1.0
    assert np.isnan(found["set_value"]).all()
    assert "sets need more than 3 pictures, these are 1" in found.attrs["set_interval"]


def folder(path: Path, pictures: Array) -> Path:
    path.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(path / f"{number:03d}.png")
    return path


def test_folders(tmp_path: Path) -> None:
    real, prompts = real_pictures(), [scene.caption() for scene in world.sample(12, 77)]
    one, two = folder(tmp_path / "one", real), folder(tmp_path / "two", real[::-1])
    (tmp_path / "p.txt").write_text("\n".join(prompts))
    code, out, err = command(
        ["evaluate", str(one), str(two), "--prompts", str(tmp_path / "p.txt"), "--scorer", "demo", "--json"]
    )
    assert code == 0, err
    rows = {(row["measure"], row["setting"]): row for row in json.loads(out)["evaluation"]["rows"]}
    assert rows["semantics", "one"]["value"] > 0.98
    assert rows["semantics", "two"]["verdict"] == "worse"
    found = of_folders({"one": one}, prompts)
    assert np.array_equal(found.read(0), real)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], ("--preset", "--guidance")),
        (["--preset", "dg-table-9"], ("preset", "dg-table-1", "dg-table-9")),
        (["NOWHERE"], ("NOWHERE", "folder", "store")),
        (["EMPTY"], ("EMPTY", "pictures")),
        (["PLAIN"], ("PLAIN", "prompts")),
        (["SIZES", "--prompts", "TWO"], ("SIZES", "(32, 64, 3)", "(64, 64, 3)")),
        (["PLAIN", "--prompts", "TWO"], ("PLAIN", "1", "2", "prompts")),
        (["BROKEN", "--prompts", "ONE"], ("BROKEN/x.png", "picture")),
        (["--preset", "dg-table-1", "--model", "TINY", "--prompts", "ONE"], ("dg-table-1", "--channels")),
    ],
)
def test_bad_pictures_are_refused(words: list[str], named: tuple[str, ...], tmp_path: Path, tiny_folder: Path) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    (tmp_path / "EMPTY").mkdir()
    folder(tmp_path / "PLAIN", picture[None])
    folder(tmp_path / "SIZES", picture[None])
    Image.fromarray(picture[:32]).save(tmp_path / "SIZES" / "small.png")
    (tmp_path / "BROKEN").mkdir()
    (tmp_path / "BROKEN" / "x.png").write_bytes(b"no picture")
    (tmp_path / "ONE").write_text("a red circle\n")
    (tmp_path / "TWO").write_text("a red circle\na blue star\n")
    given = [str(tiny_folder) if word == "TINY" else str(tmp_path / word) if word.isupper() else word for word in words]
    code, out, err = command(["evaluate", *given])
    assert code == 2, err
    assert names(err, *named) == []
    assert out == ""


@pytest.mark.long
def test_a_preset_end_to_end(demo_folder_prompts: Path, tmp_path: Path) -> None:
    words = ["evaluate", "--preset", "dg-table-1", "--model", "demo", "--prompts", str(demo_folder_prompts)]
    words += ["--out", str(tmp_path / "e.zarr"), "--steps", "2", "--repeats", "1", "--json"]
    code, out, err = command(words)
    assert code == 0, err
    found = json.loads(out)
    assert {row["setting"] for row in found["evaluation"]["rows"]} == set(
        settings(recipe("dg-table-1"), PRESETS["demo"], 8).values()
    )
    stored = interp.open_experiment(tmp_path / "e.zarr")
    assert "evaluation" in stored.results
    code, out, err = command(["report", str(tmp_path / "e.zarr"), "--out", str(tmp_path / "page.html")])
    assert code == 0, err
    page = (tmp_path / "page.html").read_text()
    assert "cfg:4+dg:1:channels=29:block=5" in page
    assert page.count("<img src='data:image/png;base64,") == 5 * 4
    assert "src='http" not in page
    assert 'src="http' not in page
    numbers = json.loads((tmp_path / "page.json").read_text())
    assert numbers["results"]["evaluation"]["data_vars"]["value"]["dims"] == ["setting", "measure"]
    again = evaluate(of_experiment(stored), [DemoScorer()])
    assert np.allclose(again["value"], stored.result("evaluation")["value"], equal_nan=True)


@pytest.fixture
def demo_folder_prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(scene.caption() for scene in world.sample(5, 4)))
    return path


def test_a_report_needs_an_evaluation(tiny_model: interp.Model, tmp_path: Path) -> None:
    from interp.experiments.kinds.sweep import sweep

    made = sweep(tiny_model, ["a red cat", "two dog"], ["none", "cfg:2"], out=tmp_path / "s.zarr", steps=2).run()
    code, _, err = command(["report", str(made.path)])
    assert code == 2
    assert names(err, made.path, f"interp evaluate {made.path}") == []
    code, _, err = command(["evaluate", str(made.path), "--scorer", "plain"])
    assert code == 0, err
    assert names(err, made.path) == []
    assert "evaluation" in interp.open_experiment(made.path).results
    assert command(["report", str(made.path), "--out", str(tmp_path / "x.pdf")])[0] == 2


def test_a_traced_run_is_a_gallery(tiny_run: interp.Run) -> None:
    made = of_run(tiny_run)
    assert np.array_equal(made.read(0), tiny_run.images["image"])
    assert list(made.prompts) == tiny_run.prompts


def test_every_recipe_has_settings_for_the_demo() -> None:
    for one in RECIPES.values():
        found = settings(one, PRESETS["demo"], 8)
        assert list(found) == list(one.settings)
        assert not any("{" in text and "," not in text for text in found.values())
        assert {name for comparison in one.comparisons for name in comparison.settings} <= set(found)
    assert settings(recipe("dg-table-1"), PRESETS["flux-dedistilled"], 57)["cfg+dg"] == "cfg:4+dg:2:channels=154,1446:block=21"


def test_metrics_with_weights_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = clip_folder(tmp_path / "clip")
    real = folder(tmp_path / "real", real_pictures()[:4])
    (tmp_path / "p.txt").write_text("\n".join(["a cat", "a dog", "a red circle", "a blue star"]))
    words = ["evaluate", str(real), "--prompts", "p.txt", "--scorer", "clip", "--weights", f"clip={weights}", "--json"]
    code, out, err = command(words)
    assert code == 0, err
    (row,) = json.loads(out)["evaluation"]["rows"]
    assert row["measure"].startswith("clip_score ("), "other weights do not bear the paper's name"
    assert 0 <= row["value"] <= 100
    assert (tmp_path / "cache" / "scores.sqlite").exists()
    assert command(words)[1] == out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--scorer", "clip,beauty"], ("scorer", "clip, blip", "beauty")),
        (["--scorer", "clip", "--weights", "clip"], ("weights", "METRIC=FOLDER", "'clip'")),
        (["--scorer", "plain", "--weights", "clip=x"], ("weights", "plain")),
        (["--scorer", "fid"], ("fid", "--real FOLDER")),
    ],
)
def test_bad_weights_are_refused(words: list[str], named: tuple[str, ...], tmp_path: Path) -> None:
    shown = folder(tmp_path / "shown", real_pictures()[:1])
    (tmp_path / "p.txt").write_text("a cat")
    code, _, err = command(["evaluate", str(shown), "--prompts", str(tmp_path / "p.txt"), *words])
    assert code == 2
    assert names(err, *named) == []


def test_errors_of_two_seeds_do_not_cancel() -> None:
    class Off:
        measures = (Measure("off", "distance from right", "zero"),)

        def check(self, prompts: Sequence[str]) -> None:
            pass

        def pictures(self, images: Array, prompts: Sequence[str]) -> dict[str, Array]:
            return {"off": images[:, 0, 0, 0].astype(float) - 100}

        def extract(self, images: Array, prompts: Sequence[str]) -> Array:
            return np.zeros((len(images), 0))

        def sets(self, features: Array, prompts: Sequence[str]) -> dict[str, float]:
            return {}

    near = np.full((24, 16, 16, 3), 102, np.uint8)
    far = np.full((24, 16, 16, 3), 110, np.uint8)
    far[1::2] = 90  # ten off in every picture, the other way in every second seed
    for pictures in (near, far):
        pictures[:, 1, 1, 1] = np.arange(24) // 2  # prompts that draw the same pictures are one prompt
    prompts = tuple(f"p{number // 2}" for number in range(24))
    made = Gallery(("near", "far"), prompts, tuple(range(24)), lambda number: (near, far)[number], "by hand")
    found = evaluate(made, [Off()]).sel(setting="far", measure="off")
    assert float(found["over"]) == pytest.approx(8.0)
    assert str(found["verdict"].values) == "worse"


def test_prompts_that_draw_the_same_pictures_are_one() -> None:
    """Eight texts of four pictures: four samples; with pictures of their own, eight."""
    draw = np.random.default_rng(0)
    prompts = tuple(f"p{number}" for number in range(8))

    def found(pictures: Array, seeds: tuple[int, ...] = tuple(range(8))) -> xr.Dataset:
        stacks = [pictures, 255 - pictures]
        return evaluate(Gallery(("a", "b"), prompts, seeds, lambda number: stacks[number], "by hand"), [Plain()])

    each = draw.integers(0, 255, (8, 16, 16, 3), dtype=np.uint8)
    twice = np.repeat(each[:4], 2, axis=0)
    assert "8 prompt texts" in found(each).attrs["interval"]
    assert "4 prompt texts" in found(twice).attrs["interval"]
    np.testing.assert_allclose(found(twice)["value"], found(np.repeat(each[:4], 2, axis=0)[::-1])["value"])
    shared = found(each, (0,) * 8)
    assert names(shared.attrs["interval"], "none", "1 seed") == []
    assert np.isnan(shared["low"]).all()


def test_folders_are_read_by_number(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    for number in range(12):
        Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(tmp_path / "one" / f"{number}.png")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "one" / "3-mask.png")
    made = of_folders({"one": tmp_path / "one"}, [f"p{number}" for number in range(12)])
    assert made.read(0)[:, 0, 0, 0].tolist() == list(range(12))


def test_folders_of_other_prompts_are_no_pairs(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a red circle\na blue star\n")
    (tmp_path / "q.txt").write_text("a blue star\na red circle\n")
    for name in ("p", "q"):
        words = ["generate", "--model", "demo", "--prompts", str(tmp_path / f"{name}.txt"), "--steps", "1"]
        code, _, err = command([*words, "--out", str(tmp_path / name)])
        assert code == 0, err
    code, _, err = command(["evaluate", str(tmp_path / "p"), str(tmp_path / "q"), "--scorer", "demo"])
    assert code == 2
    assert names(err, "settings", "prompts", "seeds") == []


def test_intervals_of_sets_end_where_the_measure_does() -> None:
    class Shares:
        measures = (
            Measure("of one", "of a picture", "higher"),
            Measure("share", "within 0..1", "higher", "set", limits=(0, 1)),
            Measure("any", "without limits", "higher", "set"),
        )

        def check(self, prompts: Sequence[str]) -> None:
            pass

        def pictures(self, images: Array, prompts: Sequence[str]) -> dict[str, Array]:
            return {"of one": images[:, 0, 0, 0].astype(float)}

        def extract(self, images: Array, prompts: Sequence[str]) -> Array:
            return images[:, 0, 0, :1] / 255

        def sets(self, features: Array, prompts: Sequence[str]) -> dict[str, float]:
            share = float((features > 0.1).mean())
            return {"share": share, "any": share}

    images = np.full((20, 8, 8, 3), 200, np.uint8)
    images[0] = 0  # 19 of 20: without two groups of prompts 0.93 to 1
    gallery = Gallery(("only",), tuple(f"prompt {number}" for number in range(20)), range(20), lambda number: images, "made")
    found = evaluate(gallery, [Shares()]).isel(setting=0)
    value, low, high = (found[name].to_numpy() for name in ("set_value", "set_low", "set_high"))
    assert value.tolist() == [0.95, 0.95]
    assert high[0] == 1 < high[1]
    assert low[0] == low[1] < 0.95
    shared = dataclasses.replace(gallery, seeds=(0,) * 20)
    assert np.isnan(evaluate(shared, [Shares()])["set_low"]).all(), "prompts that share a noise say nothing of others"
