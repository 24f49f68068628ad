"""Evaluation of sets alone, of stores and of folders: parts, options that draw, pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_inputs import run as command
from messages import names
from PIL import Image

import interp
from interp.evaluation.gallery import Gallery
from interp.evaluation.scorer import Measure, Plain
from interp.evaluation.scoring import CHUNK, compare, score


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

    def extract(self, images: Any, prompts: Any) -> Any:
        """Mean colours."""
        return np.asarray(images, float).mean(axis=(1, 2))

    def sets(self, features: Any, prompts: Any) -> dict[str, float]:
        """Their deviation."""
        return {"spread": float(np.asarray(features).std())}


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


@pytest.mark.parametrize(
    "words", [["--steps", "9"], ["--dry-run"], ["--out", "x.zarr"], ["--masks", "nowhere"], ["--seed", "0"]]
)
def test_options_of_drawing_are_refused_for_drawn_pictures(words: list[str], tmp_path: Path) -> None:
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
