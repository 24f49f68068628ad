"""LPIPS and the network of FID, on random weights in the published layout: each layer written out anew."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import weights_made as made
from messages import refused
from torch import Tensor
from torch.nn import functional

from interp.base.errors import InputError
from interp.metrics import inception, lpips, preprocess, set_distances
from interp.metrics.checkpoints import find
from interp.store.schema import Array

DRAW = np.random.default_rng(0)


# LPIPS


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_lpips_is_the_formula(tmp_path: Path, name: str) -> None:
    path, state = made.torchvision_file(tmp_path, name)
    steps: list[Any] = (  # convolutions: number, stride, padding, whether LPIPS looks there; M a maximum
        [(0, 4, 2, 1), "M3", (3, 1, 2, 1), "M3", (6, 1, 1, 1), (8, 1, 1, 1), (10, 1, 1, 1)]
        if name == "alexnet"
        else [
            *[(0, 1, 1, 0), (2, 1, 1, 1), "M2", (5, 1, 1, 0), (7, 1, 1, 1), "M2", (10, 1, 1, 0), (12, 1, 1, 0), (14, 1, 1, 1)],
            *["M2", (17, 1, 1, 0), (19, 1, 1, 0), (21, 1, 1, 1), "M2", (24, 1, 1, 0), (26, 1, 1, 0), (28, 1, 1, 1)],
        ]
    )

    def taps(picture: Array) -> list[Tensor]:
        value = torch.from_numpy(picture.transpose(2, 0, 1) / 255).float()[None] * 2 - 1
        value = (value - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) / torch.tensor([0.458, 0.448, 0.450])[
            :, None, None
        ]
        found = []
        for step in steps:
            if isinstance(step, str):
                value = functional.max_pool2d(value, int(step[1]), 2)
                continue
            number, stride, padding, compared = step
            weight, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
            value = functional.conv2d(value, weight, bias, stride, padding).clamp(min=0)
            if compared:
                found.append(value / (value.pow(2).sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    heads = torch.load(lpips.heads_of(name), map_location="cpu", weights_only=True)
    one, other = DRAW.integers(0, 256, (2, 40, 48, 3), np.uint8), DRAW.integers(0, 256, (2, 40, 48, 3), np.uint8)
    other[1] = one[1] // 2 + 60
    expected = []
    for first, second in zip(one, other, strict=True):
        pairs = zip(taps(first), taps(second), strict=True)
        levels = [functional.conv2d((a - b) ** 2, heads[f"lin{k}.model.1.weight"]).mean() for k, (a, b) in enumerate(pairs)]
        assert len(levels) == 5
        expected.append(float(sum(levels)))
    measure = lpips.Lpips(find(name, path))
    assert measure(one, other) == pytest.approx(expected, rel=1e-4)
    assert expected[0] > 2 * expected[1] > 0
    assert measure(one, one).tolist() == [0, 0]
    assert measure(other, one) == pytest.approx(expected, rel=1e-4), "the two may change places"


def test_lpips_of_other_sizes_and_without_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = made.torchvision_file(tmp_path, "alexnet")
    measure = lpips.Lpips(find("alexnet", path))
    with refused(InputError, "pictures", "(3, 24, 31, 3)", "(3, 24, 30, 3)"):
        measure(made.PICTURES, made.PICTURES[:, :, :30])
    with refused(InputError, "pictures", 32, "31 x 24"):
        measure(made.PICTURES, made.PICTURES)
    with refused(InputError, path, "lin0.model.1.weight"):
        lpips.Lpips(find("alexnet", path), heads=path)
    monkeypatch.setattr(lpips.importlib.util, "find_spec", lambda name: None)
    with refused(InputError, "pip install 'interp[eval]'"):
        lpips.Lpips(find("alexnet", path))


# Inception: the network of FID, by hand


def by_hand_inception(state: dict[str, Tensor], value: Tensor) -> Tensor:
    """Features (picture, 2048) of pictures in -1..1, every layer written out."""

    def conv(name: str, value: Tensor, stride: int = 1, padding: Any = 0) -> Tensor:
        value = functional.conv2d(value, state[f"{name}.conv.weight"], None, stride, padding)
        mean, variance = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
        scale = state[f"{name}.bn.weight"] / (variance + 0.001).sqrt()
        shift = state[f"{name}.bn.bias"] - mean * scale
        return (value * scale[:, None, None] + shift[:, None, None]).clamp(min=0)

    def chain(block: str, value: Tensor, *steps: tuple[str, Any]) -> Tensor:
        for name, padding in steps:
            value = conv(f"{block}.{name}", value, 1, padding)
        return value

    def average(value: Tensor) -> Tensor:
        """Sum over the 3 x 3 neighbours that exist, divided by how many exist."""
        ones = functional.pad(torch.ones_like(value[:1, :1]), (1, 1, 1, 1))
        there = functional.pad(value, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).sum((-1, -2))
        return there / ones.unfold(2, 3, 1).unfold(3, 3, 1).sum((-1, -2))

    value = conv("Conv2d_2b_3x3", conv("Conv2d_2a_3x3", conv("Conv2d_1a_3x3", value, 2)), 1, 1)
    value = conv("Conv2d_4a_3x3", conv("Conv2d_3b_1x1", functional.max_pool2d(value, 3, 2)))
    value = functional.max_pool2d(value, 3, 2)
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        value = torch.cat(
            [
                chain(name, value, ("branch1x1", 0)),
                chain(name, value, ("branch5x5_1", 0), ("branch5x5_2", 2)),
                chain(name, value, ("branch3x3dbl_1", 0), ("branch3x3dbl_2", 1), ("branch3x3dbl_3", 1)),
                chain(name, average(value), ("branch_pool", 0)),
            ],
            1,
        )
    inner = chain("Mixed_6a", value, ("branch3x3dbl_1", 0), ("branch3x3dbl_2", 1))
    shrunk = [conv("Mixed_6a.branch3x3", value, 2), conv("Mixed_6a.branch3x3dbl_3", inner, 2)]
    value = torch.cat([*shrunk, functional.max_pool2d(value, 3, 2)], 1)
    across, down = (0, 3), (3, 0)
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        double = [("branch7x7dbl_1", 0), *((f"branch7x7dbl_{n}", down if n % 2 == 0 else across) for n in range(2, 6))]
        value = torch.cat(
            [
                chain(name, value, ("branch1x1", 0)),
                chain(name, value, ("branch7x7_1", 0), ("branch7x7_2", across), ("branch7x7_3", down)),
                chain(name, value, *double),
                chain(name, average(value), ("branch_pool", 0)),
            ],
            1,
        )
    inner = chain("Mixed_7a", value, ("branch7x7x3_1", 0), ("branch7x7x3_2", across), ("branch7x7x3_3", down))
    three = conv("Mixed_7a.branch3x3_2", conv("Mixed_7a.branch3x3_1", value), 2)
    value = torch.cat([three, conv("Mixed_7a.branch7x7x3_4", inner, 2), functional.max_pool2d(value, 3, 2)], 1)
    for name in ("Mixed_7b", "Mixed_7c"):
        single = chain(name, value, ("branch3x3_1", 0))
        double_ = chain(name, value, ("branch3x3dbl_1", 0), ("branch3x3dbl_2", 1))
        highest = functional.pad(value, (1, 1, 1, 1), value=-math.inf).unfold(2, 3, 1).unfold(3, 3, 1).amax((-1, -2))
        value = torch.cat(
            [
                chain(name, value, ("branch1x1", 0)),
                chain(name, single, ("branch3x3_2a", (0, 1))),
                chain(name, single, ("branch3x3_2b", (1, 0))),
                chain(name, double_, ("branch3x3dbl_3a", (0, 1))),
                chain(name, double_, ("branch3x3dbl_3b", (1, 0))),
                chain(name, average(value) if name == "Mixed_7b" else highest, ("branch_pool", 0)),
            ],
            1,
        )
    return value.mean((2, 3))


def test_inception_is_the_network_of_fid(inception_file: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = inception_file
    assert len(state) == 566, "entries of the published file"
    assert {name: value.shape for name, value in inception.network().state_dict().items()} == {
        name: value.shape for name, value in state.items()
    }
    net = inception.Inception(find("inception", path))
    resized = (preprocess.like_tensorflow_1(made.PICTURES[:1], 299) - 128) / 128
    with torch.no_grad():
        expected = by_hand_inception(state, resized)[0].double().numpy()
    found = net.features(made.PICTURES[:1])
    assert found.shape == (1, 2048)
    assert found[0] == pytest.approx(expected, rel=1e-3, abs=float(1e-4 * expected.max()))
    assert np.std(expected) > 0.1 * expected.max(), "features that differ: an equality that says something"


def test_inception_score_leaves_the_bias_out(inception_file: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = inception_file
    net, features = inception.Inception(find("inception", path)), 20 * DRAW.standard_normal((6, 2048))
    logits = torch.from_numpy(features) @ state["fc.weight"].double().T
    probability = logits.softmax(1)
    divergence = (probability * (logits.log_softmax(1) - probability.mean(0).log())).sum(1)
    assert net.score(features) == pytest.approx(float(divergence.mean().exp()), rel=1e-6)
    assert net.score(features) > 1.5


def test_frechet_distance_of_few_pictures_is_that_of_the_covariances() -> None:
    from scipy import linalg

    one, other = DRAW.standard_normal((9, 12)), 2 * DRAW.standard_normal((30, 12)) + 1
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = linalg.sqrtm(first @ second).real
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert set_distances.frechet_distance(one, other) == pytest.approx(expected, rel=1e-5)
    assert set_distances.frechet_distance(other, one) == pytest.approx(expected, rel=1e-5)
