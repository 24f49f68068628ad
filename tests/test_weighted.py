"""The scorer of the papers' metrics, and its cache."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import weights_made as made
from messages import refused
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp.base.errors import InputError
from interp.evaluation import weighted
from interp.evaluation.gallery import Gallery
from interp.evaluation.scoring import evaluate
from interp.evaluation.weighted import Weighted
from interp.metrics import scores, set_distances, towers
from interp.metrics.checkpoints import find
from interp.store.schema import Array

DRAW = np.random.default_rng(0)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pictures that CLIP is shown, batch by batch."""
    shown: list[int] = []
    see = towers.Clip.see

    def seen(clip: towers.Clip, images: Array) -> Tensor:
        shown.append(len(images))
        return see(clip, images)

    monkeypatch.setattr(towers.Clip, "see", seen)
    return shown


def test_what_was_scored_is_not_scored_again(weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, cache = counted(monkeypatch), tmp_path / "deep" / "scores.sqlite"

    def score(pictures: Array, prompts: Sequence[str], **options: Any) -> Array:
        scorer = Weighted(["clip"], {"clip": weights_folder / "clip"}, cache=cache, batch=2, **options)
        return next(iter(scorer.pictures(pictures, prompts).values()))

    first = score(made.PICTURES, made.PROMPTS)
    assert shown == [2, 1]
    assert score(made.PICTURES, made.PROMPTS).tolist() == first.tolist()
    assert shown == [2, 1], "bit for bit from the cache, no network loaded"
    assert score(made.PICTURES[::-1], made.PROMPTS[::-1]).tolist() == first[::-1].tolist()
    assert shown == [2, 1]
    score(made.PICTURES, [made.PROMPTS[0], "black", made.PROMPTS[2]])
    changed = made.PICTURES.copy()
    changed[2, 0, 0, 0] ^= 1
    score(changed, made.PROMPTS)
    assert shown == [2, 1, 1, 1], "another prompt, another pixel"
    score(made.PICTURES, made.PROMPTS, dtype="bfloat16")
    assert shown[4:] == [2, 1], "another precision"
    repeated = score(np.stack([made.PICTURES[0]] * 3), ["red"] * 3)
    assert shown[6:] == [1], "the same picture is features at once"
    assert len(set(repeated)) == 1


def test_other_weights_have_scores_of_their_own(weights_folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "scores.sqlite"
    other = made.clip_folder(tmp_path / "other")
    torch.manual_seed(9)
    model = towers.Clip(find("clip", other)).model
    made.stirred(model).save_pretrained(other)
    found = [
        next(iter(Weighted(["clip"], {"clip": place}, cache=cache).pictures(made.PICTURES, made.PROMPTS).values()))
        for place in (weights_folder / "clip", other)
    ]
    assert (found[0] != found[1]).any()


@pytest.mark.parametrize("damage", ["value = x'00'", "value = zeroblob(8)", "value = null", "checksum = checksum + 1"])
def test_damaged_entries_are_computed_anew(
    weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    shown, cache = counted(monkeypatch), tmp_path / "scores.sqlite"
    first = Weighted(["clip"], {"clip": weights_folder / "clip"}, cache=cache).pictures(made.PICTURES, made.PROMPTS)
    with sqlite3.connect(cache) as file:
        assert file.execute(f"update scores set {damage}").rowcount == 3
    again = Weighted(["clip"], {"clip": weights_folder / "clip"}, cache=cache).pictures(made.PICTURES, made.PROMPTS)
    assert shown == [3, 3]
    assert [values.tolist() for values in again.values()] == [values.tolist() for values in first.values()]


def test_a_cache_that_is_another_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but something that somebody wrote")
    with refused(InputError, file):
        scores.ScoreCache(file)
    assert file.read_text().startswith("not a database")


def test_every_metric_through_an_evaluation(
    weights_folder: Path, inception_file: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    head, _ = made.aesthetic_file(tmp_path, 12)
    preferred, _ = made.open_clip_file(tmp_path, len(made.clip_tokenizer(tmp_path)))
    given = {
        "clip": weights_folder / "clip",
        "blip": weights_folder / "blip",
        "aesthetic": head,
        "hps": preferred,
        "inception": inception_file[0],
    }
    names = ["clip", "blip", "blip_cosine", "hps", "aesthetic", "fid", "inception_score", "precision", "recall"]
    real = DRAW.integers(0, 256, (4, 20, 20, 3), np.uint8)
    scorer = Weighted(names, given, real=real, cache=tmp_path / "scores.sqlite")
    pictures = np.stack([real, 255 - real // 2])
    gallery = Gallery(
        ("real", "other"),
        tuple(f"{word} circle" for word in ["a", "red", "blue", "black"]),
        (0,) * 4,
        lambda n: pictures[n],
        "here",
    )
    result = evaluate(gallery, [scorer])
    assert [str(name).split(" ")[0] for name in result["measure"].to_numpy()] == [
        "clip_score",
        "blip_itm",
        "blip_cosine",
        "hps_v2_1",
        "laion_aesthetics",
    ]
    values = {
        str(name).split(" ")[0]: result["set_value"].sel(set_measure=name).to_numpy()
        for name in result["set_measure"].to_numpy()
    }
    assert values["fid"][0] == pytest.approx(0, abs=1e-5 * values["fid"][1])
    assert values["fid"][1] > 0
    assert (values["precision"][0], values["recall"][0]) == (1, 1)
    features = scorer.extract(pictures[1], gallery.prompts)
    assert values["fid"][1] == set_distances.frechet_distance(features, scorer.extract(real, gallery.prompts))
    assert (values["inception_score"] >= 1).all()


def test_sets_of_one_and_other_wrong_questions(weights_folder: Path, inception_file: tuple[Path, dict[str, Tensor]]) -> None:
    given = {"inception": inception_file[0]}
    scorer = Weighted(["inception_score"], given)
    with refused(InputError, "inception_score", 2, 1):
        scorer.sets(np.zeros((1, 2048)), ["a"])
    with refused(InputError, "fid", "real"):
        Weighted(["fid"], given)
    with refused(InputError, "recall", 4, 3, "real"):
        Weighted(["recall"], given, real=made.PICTURES)
    with refused(InputError, "metrics", "clip, blip", "'clip'"):
        Weighted("clip", given)
    with refused(InputError, "weights", "'dino'"):
        Weighted(["clip"], {"dino": "x"})
    with refused(InputError, "batch", 1, 0):
        Weighted(["inception_score"], given, batch=0)
    clip = Weighted(["clip"], {"clip": weights_folder / "clip"})
    with refused(InputError, "prompts", 2, 3):
        clip.pictures(made.PICTURES, made.PROMPTS[:2])
    with refused(InputError, "pictures", "NaN"):
        clip.pictures(np.full((1, 20, 20, 3), np.nan), ["a"])
    assert clip.extract(made.PICTURES, made.PROMPTS).shape == (3, 0)
    assert clip.sets(np.zeros((3, 0)), made.PROMPTS) == {}
    assert set(weighted.NEEDS) == set(weighted.SINGLES) | set(weighted.SETS)


def test_damaged_weights_are_known_before_anything_is_drawn(weights_folder: Path, tmp_path: Path) -> None:
    whole = Weighted(["clip"], {"clip": weights_folder / "clip"})
    whole.check(made.PROMPTS)
    assert whole._loaded == {}, "the model that draws needs the room"
    damaged = made.clip_folder(tmp_path / "damaged")
    tensors = load_file(damaged / "model.safetensors")
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, damaged / "model.safetensors")
    with refused(InputError, "weights", "clip", damaged):
        Weighted(["clip"], {"clip": damaged}).check(made.PROMPTS)
