"""Every kind of table end to end on the demo model, as small as it gets; prompt lists; the papers' numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from bad_inputs import run as command
from messages import names, refused

import interp
from interp.analysis.study import win_rates
from interp.base.errors import InputError
from interp.cli.results import PAPERS, sections_of
from interp.evaluation import prompt_sets, protocols, recipes
from interp.evaluation.demo_scorer import SHAPES, DemoScorer, real_pictures, subject_masks
from interp.evaluation.gallery import Gallery
from interp.evaluation.protocols import plain_name, plan, results
from interp.evaluation.recipes import RECIPES, settings
from interp.evaluation.scorer import Plain
from interp.evaluation.scoring import compare, score
from interp.experiments.kinds.collapse import block_orders, collapse
from interp.guidance.presets import PRESETS
from interp.models.demo import world
from interp.models.demo.judge import load_judge
from interp.store.answers import append_answer, read_study, study_file


def evaluated(preset: str, out: Path, count: int = 4) -> dict[str, object]:
    words = ["evaluate", "--preset", preset, "--model", "demo", "--count", str(count), "--steps", "2", "--repeats", "1"]
    code, said, err = command([*words, "--out", str(out), "--json"])
    assert code == 0, err
    return dict(json.loads(said))


def page_of(store: Path) -> str:
    code, out, err = command(["report", str(store)])
    assert code == 0, err
    page = Path(out.splitlines()[0]).read_text()
    assert 'src="http' not in page
    return page


@pytest.mark.long
def test_styles_and_the_papers_numbers(tmp_path: Path) -> None:
    found = evaluated("dg-table-2", tmp_path / "e.zarr")
    styles = {name for name in found if name.startswith("evaluation: ") and "," not in name}
    assert styles == {f"evaluation: {texture}" for texture in world.TEXTURES}
    rows = found["evaluation, the paper's numbers"]["rows"]  # type: ignore[index]
    said = {row["setting"]: row["the paper, on its own models and prompts"] for row in rows}
    assert "HPSv2.1 30.96" in said["cfg:4+dg:1:channels=29:block=5"]
    page = page_of(tmp_path / "e.zarr")
    assert "HPSv2.1 30.96" in page
    assert "SHA-256" in page


@pytest.mark.long
def test_what_no_prompt_asked_for_is_compared_as_sets_alone(tmp_path: Path) -> None:
    found = evaluated("dg-table-6", tmp_path / "e.zarr")
    assert "evaluation: uncond" not in found, "no measure of it needs no prompt"
    sets = found["evaluation: uncond, of sets"]["rows"]  # type: ignore[index]
    assert [row["setting"] for row in sets] == ["cfg:0", "cfg:0+dg:1:channels=29:block=5:of=uncond"]
    assert not any("cfg:0" in row["setting"] for row in found["evaluation"]["rows"])  # type: ignore[index]
    page_of(tmp_path / "e.zarr")


def test_win_probabilities_of_disruption(tmp_path: Path) -> None:
    found = evaluated("dg-fig-5b", tmp_path / "e.zarr", 2)
    rows = {(row["measure"], row["setting"]): row for row in found["evaluation"]["rows"]}  # type: ignore[index]
    assert rows["semantics", "original"]["wins"] == 0.5
    zeroed = rows["spectrum", "zero 5"]
    assert 0 <= zeroed["wins"] <= 1
    drawn = interp.open_experiment(tmp_path / "e.zarr")
    gallery = Gallery(("a", "b"), tuple(drawn.axes["prompt_text"].values), (0,) * 2, lambda n: drawn.pictures(n)[1], "by hand")
    first, second = (DemoScorer().pictures(gallery.read(n), gallery.prompts)["spectrum"] for n in (0, 1))
    assert zeroed["wins"] == pytest.approx(np.mean(np.sign(first - second) / 2 + 0.5)), "lower is better"


@pytest.mark.long
def test_collapse_and_its_page(tmp_path: Path) -> None:
    found = evaluated("fc-disruption", tmp_path / "e.zarr", 2)
    assert {row["channels"] for row in found["collapse"]["rows"]} >= {"top 1", "lowest 24", "random 12"}  # type: ignore[index]
    assert "k channels of every block zeroed at all steps" in page_of(tmp_path / "e.zarr")


def test_collapse_edits_each_blocks_own_channels(tiny_model: interp.Model, tmp_path: Path) -> None:
    run = interp.trace(tiny_model, ["a red cat", "two dog"], out=tmp_path / "r.zarr", steps=2)
    sizes = run.stats["mean_abs"].sel(stream="image").mean(("prompt", "step"))
    signed = abs(run.stats["mean"].sel(stream="image")).mean(("prompt", "step"))
    for by, values in (("mean_abs", sizes), ("abs_mean", signed)):
        for block, order in block_orders(run, by).items():
            assert order == np.argsort(-values.sel(block=block).to_numpy(), kind="stable").tolist()
    assert block_orders(run, "mean_abs") != block_orders(run, "abs_mean")
    made = collapse(tiny_model, ["a red cat"], out=tmp_path / "c.zarr", counts=[3], run=run, steps=2).run()
    handles = []
    for block, order in block_orders(run, "mean_abs").items():

        def zero(module: object, args: object, output: object, chosen: list[int] = order[:3]) -> object:
            parts = list(output) if isinstance(output, tuple) else [output]
            kept = torch.ones(parts[-1].shape[-1])
            kept[chosen] = 0
            parts[-1] = parts[-1] * kept  # SD3: the image stream is the last item
            return tuple(parts) if isinstance(output, tuple) else parts[0]

        handles.append(tiny_model.pipe.transformer.transformer_blocks[block].register_forward_hook(zero))
    try:
        by_hand = interp.generate(tiny_model, ["a red cat"], steps=2)["image"].to_numpy()[0]
    finally:
        for handle in handles:
            handle.remove()
    arm = [str(name) for name in made.axes["arm"].to_numpy()].index("top 3")
    assert np.abs(made.picture(0, arm).astype(int) - by_hand).max() <= 1
    assert np.abs(made.picture(0, 0).astype(int) - by_hand).max() > 1
    with refused(InputError, "by", "mean_abs, abs_mean", "median"):
        collapse(tiny_model, ["a red cat"], out=tmp_path / "d.zarr", by="median", run=run)
    with refused(InputError, "counts", 31):
        collapse(tiny_model, ["a red cat"], out=tmp_path / "d.zarr", counts=[31], run=run)


def test_segmentation_against_captions(tmp_path: Path) -> None:
    found = evaluated("fc-segmentation", tmp_path / "e.zarr")
    assert {row["channels"] for row in found["segmentation score"]["rows"]} >= {"top", "bottom", "random"}  # type: ignore[index]
    assert "IoU" in page_of(tmp_path / "e.zarr")


@pytest.mark.long
def test_a_study_is_made_and_its_answers_are_read(tmp_path: Path) -> None:
    assert "study" not in evaluated("dg-app-i", tmp_path / "e.zarr")
    answers = [
        {"rater": rater, "pair": pair, "detail": "first", "colour": "tie", "prompt": "second", "left": "first", "at": "now"}
        for rater in ("one", "two")
        for pair in range(3)
    ]
    for answer in answers:
        append_answer(tmp_path / "studies" / "e.jsonl", answer)
    rows = {row["question"]: row for row in evaluated("dg-app-i", tmp_path / "e.zarr")["study"]["rows"]}  # type: ignore[index]
    by_hand = win_rates(answers)
    for question, row in rows.items():
        assert row["cfg:4+dg:1:channels=29:block=5 wins"] == float(by_hand["win"].sel(question=question))
    assert rows["detail"]["cfg:4+dg:1:channels=29:block=5 wins"] == 1.0
    page_of(tmp_path / "e.zarr")


def test_a_part_is_what_it_would_be_by_itself() -> None:
    real = np.stack([scene.picture() for scene in world.sample(12, 5)])
    stacks = (real, real[::-1], 255 - real)
    made = Gallery(("a", "b", "c"), tuple(f"p{n}" for n in range(12)), (0,) * 12, lambda n: stacks[n], "by hand")
    part = compare(score(made, [Plain()]).part(settings=[2, 1], rows=[0, 3, 7]))
    alone = Gallery(("c", "b"), ("p0", "p3", "p7"), (0,) * 3, lambda n: (stacks[2], stacks[1])[n][[0, 3, 7]], "by hand")
    again = compare(score(alone, [Plain()]))
    for name in ("value", "over", "win", "p"):
        np.testing.assert_allclose(part[name], again[name])
    with refused(InputError, "scorers", "sharpness"):
        score(made, [Plain(), Plain()])


def test_shape_score_is_the_divergence_of_the_judges_own_probabilities() -> None:
    scenes = list(world.sample(40, 9))
    pictures, prompts = np.stack([scene.picture() for scene in scenes]), [scene.caption() for scene in scenes]
    p = load_judge()(pictures).probability["shape"].astype(float)
    by_hand = np.exp(np.mean(np.sum(p * (np.log(p + 1e-30) - np.log(p.mean(0))), axis=1)))
    scorer = DemoScorer()
    found = scorer.sets(scorer.extract(pictures, prompts), prompts)[SHAPES]
    assert found == pytest.approx(by_hand, rel=1e-3)
    assert 3 < found <= 6


def test_truth_from_captions() -> None:
    scenes = list(world.sample(10, 31))
    captions = [scene.caption() for scene in scenes]
    assert np.array_equal(subject_masks(captions), np.stack([scene.mask() for scene in scenes]))
    right = [load_judge()(real_pictures(captions)).right(name, [getattr(s, name) for s in scenes]) for name in world.ATTRIBUTES]
    assert np.mean(right) > 0.98
    with refused(InputError, "a red circle in the center", "size"):
        subject_masks(["a red circle in the center"])


def hpsv2(folder: Path) -> Path:
    (folder / "benchmark").mkdir(parents=True)
    for style in ("anime", "concept-art", "paintings", "photo"):
        (folder / "benchmark" / f"{style}.json").write_text(json.dumps([f"{style} one", f"{style} two"]))
    return folder


def test_prompt_lists_as_they_are_published(tmp_path: Path) -> None:
    found = prompt_sets.read(f"hpsv2={hpsv2(tmp_path / 'h')}")
    assert found.texts[:2] == ("anime one", "anime two")
    assert found.style_of("photo two") == "photo"
    assert list(found.first(4).styles) == ["anime", "concept-art", "paintings", "photo"]
    parti = tmp_path / "PartiPrompts.tsv"
    parti.write_text('Prompt\tCategory\tChallenge\tNote\na "cat"\tAnimals\tBasic\t\nN/A\tAbstract\tBasic\t-\n')
    assert prompt_sets.read(f"partiprompts={parti}").texts == ('a "cat"', "N/A")
    assert prompt_sets.read(f"partiprompts={tmp_path}").styles == ("Animals", "Abstract")
    (tmp_path / "data").mkdir()
    pandas.DataFrame({"caption": ["a dog", "a cup"]}).to_parquet(tmp_path / "data" / "test_unique-0.parquet")
    assert prompt_sets.read(f"pick-a-pic={tmp_path}").texts == ("a dog", "a cup")
    (tmp_path / "g.txt").write_text("a photo of a bench\n")
    assert prompt_sets.read(f"geneval={tmp_path / 'g.txt'}").texts == ("a photo of a bench",)


def test_a_list_is_known_by_its_hash(tmp_path: Path) -> None:
    one, two = prompt_sets.demo(8), prompt_sets.demo(8)
    assert one.digest == two.digest != prompt_sets.demo(9).digest
    assert {style: one.styles.count(style) for style in one.styles} == dict.fromkeys(world.TEXTURES, 2)
    assert len(set(prompt_sets.demo(96).texts)) == 96


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("nowhere", ("prompts", "demo, hpsv2", "nowhere")),
        ("hpsv2=NOWHERE", ("hpsv2", "NOWHERE", "anime.json")),
        ("geneval", ("geneval", "prompts/generation_prompts.txt", "geneval=FILE")),
        ("partiprompts=BAD.tsv", ("BAD.tsv", "prompt", "text")),
        ("hpsv2=BAD", ("anime.json", "JSON")),
        ("pick-a-pic=BAD", ("prompts", "test_unique-0.parquet")),
        ("hpsv2", ("hpsv2", "anime.json", "hpsv2=")),
    ],
)
def test_bad_prompt_lists_are_refused(
    given: str, named: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "BAD" / "data").mkdir(parents=True)
    (tmp_path / "BAD" / "anime.json").write_text('{"prompts": []}')
    (tmp_path / "BAD" / "data" / "test_unique-0.parquet").write_bytes(b"no table")
    (tmp_path / "BAD.tsv").write_text("text\na\n")
    name, equals, where = given.partition("=")
    with refused(InputError, *named):
        prompt_sets.read(f"{name}={tmp_path / where}" if equals else name)


def test_the_papers_numbers_fit_the_recipes() -> None:
    for one in RECIPES.values():
        numbers = recipes.reported(one.name)
        assert numbers, one.name
        if one.settings:
            assert {number["setting"] for number in numbers} <= set(one.settings), one.name
    assert recipes.of_setting(recipes.reported("dg-table-6"), "dg").startswith("DiT-XL/2: FID 5.77, IS 179.26")


def test_styles_of_any_words_name_results() -> None:
    assert plain_name("Food & Beverage") == "Food_Beverage"
    assert plain_name("concept-art") == "concept_art"
    assert all(f"evaluation_{plain_name(style)}".isidentifier() for style in ("World Knowledge", "Food & Beverage", "anime"))


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_of_none(count: int) -> None:
    with refused(InputError, "count", 1, count):
        prompt_sets.read("demo", count)


def test_a_baseline_by_the_recipes_name_and_the_papers_scales(demo_model: interp.Model, tmp_path: Path) -> None:
    task = plan("dg-table-1", demo_model, prompt_sets.demo(2), tmp_path / "e.zarr")
    assert task.baseline("cfg") == task.baseline("cfg:4") == "cfg:4"
    assert task.baseline(None) is None
    with refused(InputError, "baseline", "none, dg, cfg, cfg+dg", "slg"):
        task.baseline("slg")
    flux = settings(RECIPES["dg-table-3"], PRESETS["flux-dedistilled"], 57)
    assert (flux["cfg"], flux["cfg+dg"]) == ("cfg:3.5", "cfg:4+dg:2:channels=154,1446:block=21")
    assert settings(RECIPES["dg-table-1"], PRESETS["sd3"], 24)["cfg"] == "cfg:4"


def test_foreign_prompts_are_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("an oil painting of Venice\n")
    words = ["evaluate", "--preset", "dg-table-1", "--prompts", str(tmp_path / "p.txt"), "--out", str(tmp_path / "e.zarr")]
    code, _, err = command([*words, "--steps", "2"])
    assert code == 2
    assert names(err, "prompt", "an oil painting of Venice", "a large red circle in the center") == []
    assert not (tmp_path / "e.zarr").exists()


@pytest.mark.long
def test_any_model_has_a_table_by_its_channels(dit_model: interp.Model, tmp_path: Path) -> None:
    classes = prompt_sets.PromptSet("labels", ("cat", "7", "dog", "999"), (None,) * 4, "typed")
    with refused(InputError, "channels", "--channels", "interp massive RUN"):
        plan("dg-table-6", dit_model, classes, tmp_path / "e.zarr")
    task = plan("dg-table-6", dit_model, classes, tmp_path / "e.zarr", channels=[3], block=1, steps=2, repeats=2)
    assert set(task.names) >= {"none", "dg:1:channels=3:block=1", "cfg:0"}
    found = results(task, task.design.run(), [Plain()])
    assert found["evaluation_uncond"]["name"].to_numpy().tolist() == ["uncond", "uncond+dg"]
    other = plan("dg-fig-5b", dit_model, classes, tmp_path / "d.zarr", channels=[3], steps=2)
    assert list(other.design.parameters["channels"]) == [3]
    with refused(InputError, "channels", "block", "Detail Guidance"):
        plan("fc-disruption", dit_model, classes, tmp_path / "f.zarr", channels=[3])


@pytest.mark.long
def test_scoring_a_presets_store_again_keeps_its_table(tmp_path: Path) -> None:
    out = str(tmp_path / "e.zarr")
    drawn = ["evaluate", "--preset", "dg-table-1", "--count", "4", "--steps", "2", "--repeats", "1", "--out", out]
    assert command([*drawn, "--dry-run"])[0] == 0
    code, _, _ = command(drawn)
    assert code == 0
    code, _, err = command(["evaluate", out, "--scorer", "plain"])
    assert code == 0
    assert names(err, "dg-table-1", out, "interp evaluate --preset dg-table-1 --out") == []
    kept = interp.open_experiment(out).result("evaluation")
    assert kept.attrs["preset"] == "dg-table-1"
    assert any(kept["paper"].to_numpy())
    assert "semantics" in kept["measure"].to_numpy()
    sections = sections_of({"evaluation": kept})
    assert "over 4 prompt texts" in sections["evaluation"][0].attrs["interval"]
    assert sections[f"evaluation{PAPERS}"][0].attrs["interval"] == ""


def test_a_study_has_many_prompts_before_many_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "PAIRS", 3)
    out = tmp_path / "e.zarr"
    words = ["evaluate", "--preset", "dg-app-i", "--count", "3", "--steps", "2", "--repeats", "2", "--out", str(out)]
    assert command(words)[0] == 0
    texts = interp.open_experiment(out).axes["prompt_text"].to_numpy()
    rows = read_study(study_file(tmp_path, "e")).rows
    assert len(rows) == len({texts[row] for row in rows}) == 3
