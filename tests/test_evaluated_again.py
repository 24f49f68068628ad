"""Evaluation, what a second reading found: sets alone, few prompts, one correction over all tables, memory, options unheard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from bad_inputs import run as command
from messages import names, refused
from PIL import Image

import interp
from interp.analysis import paired
from interp.errors import InputError, PlanError
from interp.evaluation.evaluate import CHUNK, compare, score
from interp.evaluation.gallery import Gallery
from interp.evaluation.scorers import Measure, Plain
from interp.findings.campaign import campaign
from interp.metrics import quality
from interp.metrics.pictures import as_floats
from interp.metrics.prepare import as_bytes


def table(values: Any) -> xr.DataArray:
    """(setting, measure, prompt) scores by name."""
    values = np.asarray(values, float)
    names = [[f"{letter}{n}" for n in range(size)] for letter, size in zip("smp", values.shape, strict=True)]
    return xr.DataArray(
        values, dict(zip(("setting", "measure", "prompt"), names, strict=True)), ("setting", "measure", "prompt")
    )


def made_of(count: int) -> Gallery:
    pictures = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    prompts = tuple(f"prompt {number}" for number in range(count))
    return Gallery(("a", "b"), prompts, (0,) * count, lambda number: np.roll(pictures, number, axis=1), "made by hand")


class OfSets:
    """A scorer that measures sets alone, as Table 6's metrics do."""

    measures = (Measure("spread", "deviation of the mean colour", "lower", of="set"),)
    parts: list[int]

    def __init__(self) -> None:
        self.parts = []

    def check(self, prompts: Any) -> None:
        """Any."""

    def pictures(self, images: Any, prompts: Any) -> dict[str, Any]:
        """Nothing."""
        self.parts.append(len(images))
        return {}

    def looked_at(self, images: Any, prompts: Any) -> Any:
        """Mean colours."""
        return np.asarray(images, float).mean(axis=(1, 2))

    def sets(self, looked: Any, prompts: Any) -> dict[str, float]:
        """Their deviation."""
        return {"spread": float(np.asarray(looked).std())}


def test_sets_alone_are_a_table_and_pictures_come_in_parts() -> None:
    scorer, gallery = OfSets(), made_of(CHUNK + 7)
    found = compare(score(gallery, [scorer]))  # type: ignore[list-item]
    assert found.sizes["measure"] == 0
    expected = [gallery.read(number).astype(float).mean(axis=(1, 2)).std() for number in (0, 1)]
    np.testing.assert_allclose(found["set_value"][:, 0], expected)
    assert scorer.parts == [CHUNK, 7] * 2
    whole, parts = score(gallery, [Plain()]), made_of(CHUNK + 7)
    single = Plain().pictures(parts.read(1), parts.prompts)
    for number, measure in enumerate(whole.measures):
        np.testing.assert_allclose(whole.scores[1, number], single[measure.name], rtol=1e-12)


@pytest.mark.parametrize("prompts", [2, 4, 5])
def test_few_prompts_never_say_better(prompts: int) -> None:
    """Under random signs the smallest p of five prompts is 0.0625: no interval of theirs is a finding."""
    found = paired.compare(table([np.zeros((1, prompts)), 1 + 0.01 * np.arange(prompts)[None]]))
    assert float(found["over_low"][1, 0]) > 0
    assert str(found["verdict"][1, 0].values) == "not shown"


def test_an_equivalence_that_is_withdrawn_leaves_the_direction() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0, 100, (1, 9))
    found = paired.compare(table([base, base + 1 + 0.01 * rng.normal(size=(1, 9))]), margin=0.2)
    assert str(found["verdict"][1, 0].values) == "better"


def test_one_correction_over_all_tables() -> None:
    """A comparison that stands in two tables has one p and one verdict, and counts once."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(3, 2, 12))
    values[1] += 0.8
    one, other = paired.compare(table(values)), paired.compare(table(values[:2]))
    tables = {name: found.assign_coords(prompt=[f"p{n}" for n in range(12)]) for name, found in (("a", one), ("b", other))}
    together = paired.correct_together(tables)
    np.testing.assert_array_equal(together["a"]["p_holm"][1], together["b"]["p_holm"][1])
    assert together["a"]["verdict"][1].to_numpy().tolist() == together["b"]["verdict"][1].to_numpy().tolist()
    np.testing.assert_allclose(together["a"]["p_holm"], paired.holm(one["p"].to_numpy()))
    assert "Holm over the 4 comparisons of all tables" in together["b"].attrs["p"]
    other_prompts = tables["b"].assign_coords(prompt=[f"q{n}" for n in range(12)])
    assert "6 comparisons" in paired.correct_together({"a": tables["a"], "b": other_prompts})["a"].attrs["p"]


def test_pictures_beyond_their_range_are_refused() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    for wrong in (picture.astype(float), picture.astype(np.int64), picture / 255.0 - 0.5):
        with refused(InputError, "pictures", "uint8", "0..1"):
            quality.psnr(wrong, wrong)
    assert as_floats(picture / 255.0).max() <= 1
    assert as_bytes(picture) is picture
    np.testing.assert_array_equal(as_bytes(picture / 255.0), picture)


@pytest.mark.parametrize(
    "words", [["--steps", "9"], ["--dry-run"], ["--out", "x.zarr"], ["--masks", "nowhere"], ["--seed", "0"]]
)
def test_options_of_drawing_are_not_unheard(words: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    code, _, err = command(["evaluate", str(folder), *words])
    assert code == 2
    assert names(err, words[0].removeprefix("--"), "--preset", "--guidance") == []


def test_a_run_keeps_its_evaluation_and_folders_have_a_page(tiny_model: interp.Model, tmp_path: Path) -> None:
    run = interp.trace(tiny_model, ["a red cat", "two dog"], out=tmp_path / "run.zarr", steps=2)
    code, _, err = command(["evaluate", str(run.path), "--scorer", "plain"])
    assert code == 0, err
    assert names(err, run.path) == []
    code, said, err = command(["report", str(run.path)])
    assert code == 0, err
    assert Path(said.splitlines()[0]).exists()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        for number in range(3):
            picture = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / name / f"{number}.png")
    (tmp_path / "p.txt").write_text("a\nb\nc\n")
    words = [
        "evaluate",
        str(tmp_path / "one"),
        str(tmp_path / "other"),
        "--scorer",
        "plain",
        "--prompts",
        str(tmp_path / "p.txt"),
    ]
    code, _, err = command([*words, "--page", str(tmp_path / "page.html")])
    assert code == 0, err
    numbers = json.loads((tmp_path / "page.json").read_text())["results"]["evaluation"]
    assert numbers["coords"]["setting"]["data"] == ["one", "other"]
    assert "data:image/png" in (tmp_path / "page.html").read_text()
    code, _, err = command(["evaluate", str(run.path), "--scorer", "plain", "--page", str(tmp_path / "x.html")])
    assert code == 2
    assert names(err, "page", f"interp report {run.path}") == []


def test_a_damaged_campaign_says_so(tiny_folder: Path, tmp_path: Path) -> None:
    from interp.evaluation import prompt_sets

    (tmp_path / "p.txt").write_text("a red cat\ntwo dog\nthe green circle\na photo of a dog\n")
    made = campaign(interp.load(tiny_folder), prompt_sets.read(str(tmp_path / "p.txt")), tmp_path / "c", steps=2)
    made.setup.claim()
    (tmp_path / "c" / "campaign.json").write_text('{"model": ')
    with refused(PlanError, "campaign.json", "--out"):
        made.setup.claim()
