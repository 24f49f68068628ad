"""The demo judge: what it sees on held-out pictures, what it loses, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from messages import refused
from scipy import ndimage

import interp
from interp.base.errors import InputError
from interp.models.demo import judge as judging
from interp.models.demo import world
from interp.models.demo.train_judge import through_vae, train

SEED = 24_680  # neither the training's nor the shipped measurement's


@pytest.fixture(scope="module")
def scenes() -> list[world.Scene]:
    return list(world.sample(300, SEED))


@pytest.fixture(scope="module")
def pictures(scenes: list[world.Scene]) -> np.ndarray:
    return np.stack([scene.picture() for scene in scenes])


def accuracy(pictures: np.ndarray, scenes: list[world.Scene]) -> dict[str, float]:
    verdicts = judging.load_judge()(pictures)
    return {name: float(verdicts.right(name, [getattr(s, name) for s in scenes]).mean()) for name in world.ATTRIBUTES}


def test_held_out_real_pictures(scenes: list[world.Scene], pictures: np.ndarray) -> None:
    found = accuracy(pictures, scenes)
    assert np.mean([found[name] for name in judging.SEMANTIC]) >= 0.95
    assert found["texture"] >= 0.90


def test_pictures_of_the_vae(scenes: list[world.Scene], pictures: np.ndarray, demo_model: interp.Model) -> None:
    found = accuracy(through_vae(demo_model.pipe.vae, pictures[:100]), scenes[:100])
    assert min(found.values()) >= 0.9


def test_blur_takes_texture_before_semantics(scenes: list[world.Scene], pictures: np.ndarray) -> None:
    blurred = ndimage.gaussian_filter(pictures.astype(np.float32), 3.0, axes=(1, 2)).round().astype(np.uint8)
    found = accuracy(blurred, scenes)
    assert found["texture"] < 0.8 < np.mean([found[name] for name in judging.SEMANTIC])


def test_the_shipped_numbers_are_those_of_the_docs() -> None:
    stored = json.loads((Path(judging.__file__).parent / "judge_accuracy.json").read_text())["pictures"]
    page = (Path(__file__).parents[1] / "docs" / "judge.md").read_text()
    columns = ["shape", "colour", "size", "position", "background", "semantics", "texture"]
    for name, line in stored.items():
        assert f"| {name} | " + " | ".join(f"{100 * line[column]:.1f}" for column in columns) + " |" in page, name
    assert stored["as they are"]["semantics"] >= 0.95
    assert stored["as they are"]["texture"] >= 0.90


def test_what_a_caption_asks_for() -> None:
    for scene in world.sample(50, 3):
        for order in (0, 1):
            asked = judging.asked_for(scene.caption(order=order))
            assert asked == {name: getattr(scene, name) for name in world.ATTRIBUTES}
    asked = judging.asked_for("a red circle in the top left")
    assert {name: value for name, value in asked.items() if value} == {
        "shape": "circle",
        "colour": "red",
        "position": "top left",
    }
    assert len(asked) == 6


@pytest.mark.parametrize(("scenes", "steps"), [(64, 16), pytest.param(300, 40, marks=pytest.mark.full)])
def test_training_learns_and_saves(
    scenes: int, steps: int, demo_model: interp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp.models.demo import train_judge

    monkeypatch.setattr(train_judge, "SCENES", scenes)
    monkeypatch.setattr(train_judge, "HELD_OUT", min(scenes // 4, 40))
    losses: list[float] = []
    made = train(tmp_path, demo_model.pipe.vae, steps=steps, report=lambda part, step, steps, loss: losses.append(loss))
    assert len(losses) >= 10
    assert np.mean(losses[-5:]) < (0.8 if steps == 40 else 0.9) * np.mean(losses[:5])
    again = judging.load_judge(tmp_path / "judge.safetensors")
    stack = np.stack([scene.picture() for scene in world.sample(4, 1)])
    assert np.allclose(made(stack).features, again(stack).features, atol=0.05), "half precision on disk"
    assert set(json.loads((tmp_path / "accuracy.json").read_text())["pictures"]) >= {"as they are", "through the VAE"}


@pytest.mark.parametrize(
    "pictures", [np.zeros((1, 32, 32, 3), np.uint8), np.zeros((64, 64, 3), np.uint8), np.zeros((1, 64, 64, 3))]
)
def test_other_pictures_are_refused(pictures: np.ndarray) -> None:
    with refused(InputError, "demo judge", "uint8", "64 x 64", pictures.dtype, pictures.shape):
        judging.load_judge()(pictures)


def test_no_judge(tmp_path: Path) -> None:
    with refused(InputError, "none.safetensors", "interp demo train-judge --out FOLDER"):
        judging.load_judge(tmp_path / "none.safetensors")


def test_features_are_of_the_net() -> None:
    judge = judging.load_judge()
    stack = np.stack([scene.picture() for scene in world.sample(3, 8)])
    with torch.no_grad():
        features, logits = judge.net(judging.as_input(stack))
    found = judge(stack)
    np.testing.assert_allclose(found.features, features.numpy(), rtol=1e-4, atol=1e-5)
    assert found.features.shape == (3, judging.FEATURES)
    for name, values in logits.items():
        np.testing.assert_allclose(found.probability[name], values.softmax(-1).numpy(), rtol=1e-4, atol=1e-5)
