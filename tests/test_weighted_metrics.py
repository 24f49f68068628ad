"""Metrics with weights, on tiny random weights of the real architectures: each against the original formula, written here anew.

Real weights are never here. What these tests cannot show is that the published files load; their names and shapes are those
that `weights_made` writes out.
"""

from __future__ import annotations

import dataclasses
import math
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import weights_made as made
from torch import Tensor, nn
from torch.nn import functional

from interp.errors import InputError
from interp.evaluation import weighted
from interp.evaluation.evaluate import evaluate
from interp.evaluation.gallery import Gallery
from interp.evaluation.weighted import Weighted
from interp.metrics import checkpoints, features, hps, inception, lpips, prepare, scores, towers
from interp.metrics.checkpoints import find
from interp.store.schema import Array

DRAW = np.random.default_rng(0)
PICTURES = DRAW.integers(0, 256, (3, 24, 31, 3), np.uint8)
PROMPTS = ["a red circle", "blue", "a square on the black & square black blue red circle on the black square"]
MEAN, DEVIATION = torch.tensor(prepare.CLIP_MEAN)[:, None, None], torch.tensor(prepare.CLIP_DEVIATION)[:, None, None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of weights but Inception's: clip/, blip/, the HPS and aesthetic files."""
    place = tmp_path_factory.mktemp("weights")
    made.clip_folder(place / "clip")
    made.blip_folder(place / "blip")
    return place


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    return made.inception_file(tmp_path_factory.mktemp("inception"))


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without weights and without a network: its hub cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path / "hub"


# pictures as networks see them


@pytest.mark.parametrize("size", [(24, 31), (31, 24), (16, 16), (8, 9), (101, 40)])
def test_pictures_are_cut_as_transformers_cuts_them(size: tuple[int, int]) -> None:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    picture = DRAW.integers(0, 256, (1, *size, 3), np.uint8)
    theirs = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    expected = theirs(picture[0], return_tensors="pt")["pixel_values"]
    ours = prepare.clip_colours(prepare.centre_square(picture, 16))
    assert torch.allclose(ours, expected, atol=1e-6)
    theirs = BlipImageProcessorPil(size={"height": 16, "width": 16})
    expected = theirs(picture[0], return_tensors="pt")["pixel_values"]
    assert torch.allclose(prepare.clip_colours(prepare.square(picture, 16)), expected, atol=1e-6)


def test_pictures_cut_by_hand() -> None:
    picture = DRAW.integers(0, 256, (1, 4, 8, 3), np.uint8)
    hand = torch.from_numpy(picture[0, :, 2:6].transpose(2, 0, 1) / 255).float()
    assert torch.equal(prepare.centre_square(picture, 4)[0], hand), "nothing to resize: the middle, as it is"
    boxed = prepare.letterbox(picture, 8)[0]
    assert torch.equal(boxed[:, 2:6], torch.from_numpy(picture[0].transpose(2, 0, 1) / 255).float())
    assert (boxed[:, :2] == 0).all()
    assert (boxed[:, 6:] == 0).all()
    grey = prepare.clip_colours(prepare.letterbox(np.full((1, 20, 20, 3), 51, np.uint8), 8))
    assert torch.allclose(grey, ((0.2 - MEAN) / DEVIATION).expand(1, 3, 8, 8), atol=1e-6)


def test_bilinear_as_tensorflow_1_does_it() -> None:
    line = np.zeros((1, 2, 2, 3), np.uint8)
    line[0, :, 1], line[0, 1] = 100, 200
    row = prepare.like_tensorflow_1(line, 4)[0, 0]
    assert row[0].tolist() == [0, 50, 100, 100], "places 0, 0.5, 1, 1.5; beyond the last pixel it stays"
    assert row[:, 0].tolist() == [0, 100, 200, 200]
    picture = DRAW.integers(0, 256, (1, 6, 6, 3), np.uint8)
    assert torch.equal(prepare.like_tensorflow_1(picture, 3)[0, 1], torch.from_numpy(picture[0, ::2, ::2, 1]).float())


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        (np.full((1, 20, 20, 3), np.nan), "NaN"),
        (np.full((1, 20, 20, 3), 2.0), r"0\.\.1; got 2 to 2"),
        (np.zeros((20, 20, 3), np.uint8), r"must be \(picture, y, x, rgb\)"),
        (np.zeros((1, 20, 20, 4), np.uint8), r"\(1, 20, 20, 4\)"),
    ],
)
def test_what_is_no_picture_is_refused(pictures: Array, said: str) -> None:
    with pytest.raises(InputError, match=said):
        prepare.as_bytes(pictures)


def test_floats_and_bytes_are_the_same_pictures() -> None:
    assert (prepare.as_bytes(PICTURES / 255) == PICTURES).all()


# CLIPScore, LAION-Aesthetics, BLIP-ITM


def test_clip_score_is_the_cosine_of_transformers_model(folder: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model, words = CLIPModel.from_pretrained(folder / "clip").eval(), CLIPTokenizer.from_pretrained(folder / "clip")
    cut = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    expected = []
    for picture, prompt in zip(PICTURES, PROMPTS, strict=True):  # one by one: no padding
        text = words(prompt, truncation=True, max_length=20, return_tensors="pt")
        with torch.no_grad():
            found = model(**text, **cut(picture, return_tensors="pt"))
        expected.append(float(found.logits_per_image / model.logit_scale.detach().exp()))
    clip = towers.Clip(find("clip", folder / "clip"))
    assert clip.cosine(PICTURES, PROMPTS) == pytest.approx(expected, abs=1e-6)
    assert len({round(value, 3) for value in expected}) == 3
    score = towers.clip_score(clip, PICTURES, PROMPTS)
    assert score == pytest.approx(100 * np.maximum(expected, 0), abs=1e-4)


def test_clip_score_of_what_points_away_is_zero(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = towers.Clip(find("clip", folder / "clip"))
    monkeypatch.setattr(clip, "cosine", lambda images, prompts: np.array([-0.5, 0.25]))
    assert towers.clip_score(clip, PICTURES[:2], PROMPTS[:2]).tolist() == [0, 25]


def test_aesthetics_are_five_matrices_on_the_unit_vector(folder: Path) -> None:
    path, pairs = made.aesthetic_file(folder, 12)
    clip = towers.Clip(find("clip", folder / "clip"))
    value = clip.see(PICTURES)
    assert torch.allclose(value.norm(dim=-1), torch.ones(3))
    for weight, bias in pairs:
        value = value @ weight.T + bias
    assert towers.Aesthetics(find("aesthetic", path), clip)(PICTURES) == pytest.approx(value[:, 0].numpy(), rel=1e-4)


def test_blip_is_the_softmax_of_its_matching_head(folder: Path) -> None:
    from transformers import BertTokenizer, BlipForImageTextRetrieval
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    model = BlipForImageTextRetrieval.from_pretrained(folder / "blip").eval()
    words, cut = BertTokenizer.from_pretrained(folder / "blip"), BlipImageProcessorPil(size={"height": 16, "width": 16})
    matching, cosine = [], []
    for picture, prompt in zip(PICTURES, PROMPTS, strict=True):
        given: dict[str, Any] = {**words(prompt, return_tensors="pt"), **cut(picture, return_tensors="pt")}
        given.pop("token_type_ids", None)
        with torch.no_grad():
            no, yes = model(**given).itm_score[0].tolist()
            cosine.append(100 * float(model(**given, use_itm_head=False).itm_score))
        matching.append(100 * math.exp(yes) / (math.exp(yes) + math.exp(no)))
    blip = towers.Blip(find("blip", folder / "blip"))
    assert blip.matching(PICTURES, PROMPTS) == pytest.approx(matching, rel=1e-4)
    assert blip.cosine(PICTURES, PROMPTS) == pytest.approx(cosine, rel=1e-3, abs=1e-3)
    assert len({round(value, 2) for value in matching}) == 3


def test_half_precision_is_near_and_a_device_must_be_here(folder: Path) -> None:
    weights = find("clip", folder / "clip")
    whole, half = towers.Clip(weights), towers.Clip(weights, dtype="bfloat16")
    assert half.cosine(PICTURES, PROMPTS) == pytest.approx(whole.cosine(PICTURES, PROMPTS), abs=0.05)
    assert (half.cosine(PICTURES, PROMPTS) != whole.cosine(PICTURES, PROMPTS)).any()
    with pytest.raises(InputError, match="dtype must be one of float32, bfloat16, float16; got 'int8'"):
        towers.Clip(weights, dtype="int8")
    with pytest.raises(InputError, match="device must be one that torch can use here"):
        towers.Clip(weights, device="abacus")


# HPSv2.1: open_clip by hand


def by_hand_tower(state: dict[str, Tensor], tower: str, value: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """open_clip's transformer: (token, width) -> (token, width)."""
    width = value.shape[-1]
    for number in range(2):
        own = {
            name.removeprefix(f"{tower}.resblocks.{number}."): value_
            for name, value_ in state.items()
            if name.startswith(f"{tower}.resblocks.{number}.")
        }
        attention = nn.MultiheadAttention(width, heads)
        attention.load_state_dict({name.removeprefix("attn."): v for name, v in own.items() if name.startswith("attn.")})
        normed = functional.layer_norm(value, (width,), own["ln_1.weight"], own["ln_1.bias"])
        value = value + attention(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        normed = functional.layer_norm(value, (width,), own["ln_2.weight"], own["ln_2.bias"])
        inner = functional.gelu(functional.linear(normed, own["mlp.c_fc.weight"], own["mlp.c_fc.bias"]))
        value = value + functional.linear(inner, own["mlp.c_proj.weight"], own["mlp.c_proj.bias"])
    return value


def by_hand_hps(state: dict[str, Tensor], picture: Tensor, tokens: Sequence[int]) -> float:
    """Cosine of one picture (rgb, 16, 16) and one prompt, as open_clip's CLIP computes it."""
    patches = functional.conv2d(picture[None], state["visual.conv1.weight"], stride=8).flatten(2)[0].T
    value = torch.cat([state["visual.class_embedding"][None], patches]) + state["visual.positional_embedding"]
    value = functional.layer_norm(value, (160,), state["visual.ln_pre.weight"], state["visual.ln_pre.bias"])
    value = by_hand_tower(state, "visual.transformer", value, 2, None)[0]
    seen = (
        functional.layer_norm(value, (160,), state["visual.ln_post.weight"], state["visual.ln_post.bias"])
        @ state["visual.proj"]
    )
    padded = torch.tensor([*tokens, *[0] * (20 - len(tokens))])  # open_clip pads with zeros to the whole length
    value = state["token_embedding.weight"][padded] + state["positional_embedding"]
    value = by_hand_tower(state, "transformer", value, 2, state["attn_mask"])
    value = functional.layer_norm(value, (128,), state["ln_final.weight"], state["ln_final.bias"])
    read = value[padded.argmax()] @ state["text_projection"]
    return float(seen @ read / seen.norm() / read.norm())


def test_hps_is_open_clip(tmp_path: Path) -> None:
    vocabulary = made.clip_tokenizer(tmp_path)
    path, state = made.open_clip_file(tmp_path, len(vocabulary))
    square = DRAW.integers(0, 256, (2, 16, 16, 3), np.uint8)
    prompts = ["ab c", "  red &amp;amp; blue"]  # spaces and entities are cleaned away
    tokens = [["a", "b</w>", "c</w>"], ["r", "e", "d</w>", "&</w>", "b", "l", "u", "e</w>"]]
    whole = [[vocabulary[word] for word in ("<|startoftext|>", *one, "<|endoftext|>")] for one in tokens]
    pictures = (torch.from_numpy(square.transpose(0, 3, 1, 2) / 255).float() - MEAN) / DEVIATION
    with torch.no_grad():
        expected = [by_hand_hps(state, *one) for one in zip(pictures, whole, strict=True)]
    scorer = hps.Hps(find("hps", path))
    assert scorer.cosine(square, prompts) == pytest.approx(expected, abs=1e-5)
    assert hps.hps_score(scorer, square, prompts) == pytest.approx(100 * np.array(expected), abs=1e-3)
    assert scorer.model.config.vision_config.image_size == 16


def test_hps_configuration_is_vit_h_14() -> None:
    """The published checkpoint's shapes give the published architecture."""
    shapes = {
        "visual.conv1.weight": (1280, 3, 14, 14),
        "visual.positional_embedding": (257, 1280),
        "positional_embedding": (77, 1024),
        "text_projection": (1024, 1024),
        "token_embedding.weight": (49408, 1024),
        **{f"visual.transformer.resblocks.{n}.mlp.c_fc.weight": (5120, 1280) for n in range(32)},
        **{f"transformer.resblocks.{n}.mlp.c_fc.weight": (4096, 1024) for n in range(24)},
    }
    found = hps.configuration({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    vision, text = found["vision_config"], found["text_config"]
    assert (vision["num_hidden_layers"], vision["num_attention_heads"], vision["image_size"]) == (32, 16, 224)
    assert (text["num_hidden_layers"], text["num_attention_heads"], text["max_position_embeddings"]) == (24, 16, 77)
    assert (vision["intermediate_size"], text["intermediate_size"], vision["hidden_act"]) == (5120, 4096, "gelu")


def test_hps_without_a_tokenizer_or_with_another_file(tmp_path: Path, nowhere: Path) -> None:
    path, _ = made.open_clip_file(tmp_path, 78)
    with pytest.raises(InputError, match="no tokenizer of its own; put CLIP's beside it"):
        hps.Hps(find("hps", path))
    torch.save({"some.weight": torch.zeros(3)}, path)
    with pytest.raises(InputError, match=r"no open_clip checkpoint: they lack visual\.conv1\.weight"):
        hps.Hps(find("hps", path))


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
    with pytest.raises(InputError, match=r"of one size; got \(3, 24, 31, 3\) and \(3, 24, 30, 3\)"):
        measure(PICTURES, PICTURES[:, :, :30])
    with pytest.raises(InputError, match="at least 32 pixels a side; got 31 x 24"):
        measure(PICTURES, PICTURES)
    with pytest.raises(InputError, match=r"must hold lin0\.model\.1\.weight"):
        lpips.Lpips(find("alexnet", path), heads=path)
    monkeypatch.setattr(lpips.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'interp\[eval\]'"):
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
    resized = (prepare.like_tensorflow_1(PICTURES[:1], 299) - 128) / 128
    with torch.no_grad():
        expected = by_hand_inception(state, resized)[0].double().numpy()
    found = net.features(PICTURES[:1])
    assert found.shape == (1, 2048)
    assert found[0] == pytest.approx(expected, rel=1e-3, abs=float(1e-4 * expected.max()))
    assert np.std(expected) > 0.1 * expected.max(), "features that differ: an equality that says something"


def test_inception_score_leaves_the_bias_out(inception_file: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = inception_file
    net, looked = inception.Inception(find("inception", path)), 20 * DRAW.standard_normal((6, 2048))
    logits = torch.from_numpy(looked) @ state["fc.weight"].double().T
    probability = logits.softmax(1)
    divergence = (probability * (logits.log_softmax(1) - probability.mean(0).log())).sum(1)
    assert net.score(looked) == pytest.approx(float(divergence.mean().exp()), rel=1e-6)
    assert net.score(looked) > 1.5


def test_frechet_distance_of_few_pictures_is_that_of_the_covariances() -> None:
    from scipy import linalg

    one, other = DRAW.standard_normal((9, 12)), 2 * DRAW.standard_normal((30, 12)) + 1
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = linalg.sqrtm(first @ second).real
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert features.frechet_distance(one, other) == pytest.approx(expected, rel=1e-5)
    assert features.frechet_distance(other, one) == pytest.approx(expected, rel=1e-5)


# weights: where they are looked for, and what they are called


@pytest.mark.parametrize("name", list(checkpoints.SOURCES))
def test_missing_weights_say_which_file_and_what_to_type(nowhere: Path, name: str) -> None:
    source = checkpoints.SOURCES[name]
    with pytest.raises(InputError) as caught:
        find(name)
    said = str(caught.value)
    assert said.startswith(f"weights {name}: {source.what} is not on this machine and cannot be fetched (")
    assert source.of in said
    assert f"--weights {name}=" in said
    assert "\n" not in said


def test_wrong_places_and_files(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match=r"weights inception=.*nothing: no such folder or file; get pt_inception"):
        find("inception", tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"must be a folder with a config\.json; get it \(`hf download openai/clip"):
        find("clip", tmp_path / "empty")
    with pytest.raises(InputError, match="must hold HPS_v2.1_compressed.pt; 0 files of tensors are there"):
        find("hps", tmp_path / "empty")
    with pytest.raises(InputError, match="weights of 'dino' are not known; known: clip, blip"):
        find("dino")
    text = tmp_path / "text.pth"
    text.write_text("no tensors")
    with pytest.raises(InputError, match="cannot be read as tensors"):
        inception.Inception(find("inception", text))
    other, _ = made.torchvision_file(tmp_path, "alexnet")
    with pytest.raises(InputError, match=r"lack Conv2d_1a_3x3\.conv\.weight"):
        inception.Inception(find("inception", other))
    with pytest.raises(InputError, match=r"features\.0\.weight must be \(64, 3, 3, 3\); got \(64, 3, 11, 11\)"):
        lpips.Lpips(find("vgg16", other))
    with pytest.raises(InputError, match=r"are no CLIPModel's: they lack|cannot be loaded"):
        towers.Clip(find("clip", folder / "blip"))


class Stranger:
    """What a pickle must not bring to life."""


def test_pickles_with_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    torch.save({"state_dict": Stranger()}, path)
    with pytest.raises(InputError, match="cannot be read as tensors.*code in pickles is never run"):
        checkpoints.tensors_of(find("aesthetic", path))


def test_folders_that_lack_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    made.clip_folder(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="they lack visual_projection.weight, which would be random"):
        towers.Clip(find("clip", tmp_path))


def test_weights_from_the_hub_cache_are_the_published_ones(nowhere: Path, folder: Path) -> None:
    kept, revision = nowhere / "models--openai--clip-vit-large-patch14", "0123456789" * 4
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(revision)
    (kept / "snapshots" / revision).mkdir(parents=True)
    for file in (folder / "clip").iterdir():
        (kept / "snapshots" / revision / file.name).write_bytes(file.read_bytes())
    for scorer in (Weighted(["clip"]), Weighted(["clip"], {"clip": "openai/clip-vit-large-patch14"})):
        assert [measure.name for measure in scorer.measures] == ["clip_score"]
        assert scorer.weights["clip"].startswith("openai/clip-vit-large-patch14@012345678901, sha256 ")
    same = Weighted(["clip"], {"clip": folder / "clip"})
    assert same.found["clip"].digest == scorer.found["clip"].digest, "the same files, wherever they are"
    assert not same.found["clip"].published


def test_names_of_papers_are_kept_for_published_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = made.aesthetic_file(folder, 12)
    given = {"clip": folder / "clip", "aesthetic": path}
    scorer = Weighted(["clip", "aesthetic"], given)
    clip, head = (scorer.found[name].digest[:8] for name in ("clip", "aesthetic"))
    assert [measure.name for measure in scorer.measures] == [f"clip_score ({clip})", f"laion_aesthetics ({head}+{clip})"]
    assert all("not the published weights" in measure.meaning for measure in scorer.measures)
    assert "not known to be published" in scorer.weights["aesthetic"]
    hashes = {"aesthetic": checkpoints._sha256(path), "clip": checkpoints._sha256(folder / "clip" / "model.safetensors")}
    for name, digest in hashes.items():
        known = dataclasses.replace(checkpoints.SOURCES[name], digest=digest)
        monkeypatch.setitem(checkpoints.SOURCES, name, known)  # type: ignore[arg-type]
    assert [measure.name for measure in Weighted(["clip", "aesthetic"], given).measures] == ["clip_score", "laion_aesthetics"]


# the scorer and its cache


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pictures that CLIP is shown, batch by batch."""
    shown: list[int] = []
    see = towers.Clip.see

    def seen(clip: towers.Clip, images: Array) -> Tensor:
        shown.append(len(images))
        return see(clip, images)

    monkeypatch.setattr(towers.Clip, "see", seen)
    return shown


def test_what_was_scored_is_not_scored_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, cache = counted(monkeypatch), tmp_path / "deep" / "scores.sqlite"

    def score(pictures: Array, prompts: Sequence[str], **options: Any) -> Array:
        scorer = Weighted(["clip"], {"clip": folder / "clip"}, cache=cache, batch=2, **options)
        return next(iter(scorer.pictures(pictures, prompts).values()))

    first = score(PICTURES, PROMPTS)
    assert shown == [2, 1]
    assert score(PICTURES, PROMPTS).tolist() == first.tolist()
    assert shown == [2, 1], "bit for bit from the cache, no network loaded"
    assert score(PICTURES[::-1], PROMPTS[::-1]).tolist() == first[::-1].tolist()
    assert shown == [2, 1]
    score(PICTURES, [PROMPTS[0], "black", PROMPTS[2]])
    changed = PICTURES.copy()
    changed[2, 0, 0, 0] ^= 1
    score(changed, PROMPTS)
    assert shown == [2, 1, 1, 1], "another prompt, another pixel"
    score(PICTURES, PROMPTS, dtype="bfloat16")
    assert shown[4:] == [2, 1], "another precision"
    repeated = score(np.stack([PICTURES[0]] * 3), ["red"] * 3)
    assert shown[6:] == [1], "the same picture is looked at once"
    assert len(set(repeated)) == 1


def test_other_weights_have_scores_of_their_own(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "scores.sqlite"
    other = made.clip_folder(tmp_path / "other")
    torch.manual_seed(9)
    model = towers.Clip(find("clip", other)).model
    made.stirred(model).save_pretrained(other)
    found = [
        next(iter(Weighted(["clip"], {"clip": place}, cache=cache).pictures(PICTURES, PROMPTS).values()))
        for place in (folder / "clip", other)
    ]
    assert (found[0] != found[1]).any()


@pytest.mark.parametrize("damage", ["value = x'00'", "value = zeroblob(8)", "value = null", "checksum = checksum + 1"])
def test_damaged_entries_are_computed_anew(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    shown, cache = counted(monkeypatch), tmp_path / "scores.sqlite"
    first = Weighted(["clip"], {"clip": folder / "clip"}, cache=cache).pictures(PICTURES, PROMPTS)
    with sqlite3.connect(cache) as file:
        assert file.execute(f"update scores set {damage}").rowcount == 3
    again = Weighted(["clip"], {"clip": folder / "clip"}, cache=cache).pictures(PICTURES, PROMPTS)
    assert shown == [3, 3]
    assert [values.tolist() for values in again.values()] == [values.tolist() for values in first.values()]


def test_a_cache_that_is_another_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but something that somebody wrote")
    with pytest.raises(InputError, match="cannot be opened as a file of scores"):
        scores.Cache(file)
    assert file.read_text().startswith("not a database")


def test_every_metric_through_an_evaluation(
    folder: Path, inception_file: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    head, _ = made.aesthetic_file(tmp_path, 12)
    preferred, _ = made.open_clip_file(tmp_path, len(made.clip_tokenizer(tmp_path)))
    given = {
        "clip": folder / "clip",
        "blip": folder / "blip",
        "aesthetic": head,
        "hps": preferred,
        "inception": inception_file[0],
    }
    names = ["clip", "blip", "blip_cosine", "hps", "aesthetic", "fid", "inception_score", "precision", "recall"]
    real = DRAW.integers(0, 256, (5, 20, 20, 3), np.uint8)
    scorer = Weighted(names, given, real=real, cache=tmp_path / "scores.sqlite")
    pictures = np.stack([real, 255 - real // 2])
    gallery = Gallery(
        ("real", "other"),
        tuple(f"{word} circle" for word in ["a", "red", "blue", "black", "the"]),
        (0,) * 5,
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
    looked = scorer.looked_at(pictures[1], gallery.prompts)
    assert values["fid"][1] == features.frechet_distance(looked, scorer.looked_at(real, gallery.prompts))
    assert (values["inception_score"] >= 1).all()


def test_sets_of_one_and_other_wrong_questions(folder: Path, inception_file: tuple[Path, dict[str, Tensor]]) -> None:
    given = {"inception": inception_file[0]}
    scorer = Weighted(["inception_score"], given)
    with pytest.raises(InputError, match="inception_score is of sets of 2 or more pictures; got 1; draw more prompts or seeds"):
        scorer.sets(np.zeros((1, 2048)), ["a"])
    with pytest.raises(InputError, match="fid is taken against real pictures: give some"):
        Weighted(["fid"], given)
    with pytest.raises(InputError, match="recall needs 4 or more real pictures; got 3"):
        Weighted(["recall"], given, real=PICTURES)
    with pytest.raises(InputError, match="metrics must be one or more of clip, blip, .*; got 'clip'"):
        Weighted("clip", given)
    with pytest.raises(InputError, match="got 'dino'"):
        Weighted(["clip"], {"dino": "x"})
    with pytest.raises(InputError, match="batch must be 1 or more; got 0"):
        Weighted(["inception_score"], given, batch=0)
    clip = Weighted(["clip"], {"clip": folder / "clip"})
    with pytest.raises(InputError, match="prompts must be one a picture; got 2 for 3 pictures"):
        clip.pictures(PICTURES, PROMPTS[:2])
    with pytest.raises(InputError, match="NaN"):
        clip.pictures(np.full((1, 20, 20, 3), np.nan), ["a"])
    assert clip.looked_at(PICTURES, PROMPTS).shape == (3, 0)
    assert clip.sets(np.zeros((3, 0)), PROMPTS) == {}
    assert set(weighted.NEEDS) == set(weighted.SINGLES) | set(weighted.SETS)
