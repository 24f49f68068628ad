"""Metrics with weights, on tiny random weights of the real architectures: each against the original formula, written here anew.

Real weights are never here. What these tests cannot show is that the published files load; their names and shapes are those
that `weights_made` writes out. LPIPS and Inception: test_lpips_inception.py; the scorer: test_weighted.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import weights_made as made
from messages import refused
from torch import Tensor, nn
from torch.nn import functional

from interp.base.errors import InputError
from interp.metrics import hps, preprocess, towers
from interp.metrics.checkpoints import find
from interp.store.schema import Array

DRAW = np.random.default_rng(0)
MEAN, DEVIATION = torch.tensor(preprocess.CLIP_MEAN)[:, None, None], torch.tensor(preprocess.CLIP_DEVIATION)[:, None, None]


# pictures as networks see them


@pytest.mark.parametrize("size", [(24, 31), (31, 24), (16, 16), (8, 9), (101, 40)])
def test_pictures_are_cut_as_transformers_cuts_them(size: tuple[int, int]) -> None:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    picture = DRAW.integers(0, 256, (1, *size, 3), np.uint8)
    theirs = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    expected = theirs(picture[0], return_tensors="pt")["pixel_values"]
    ours = preprocess.clip_colours(preprocess.centre_square(picture, 16))
    assert torch.allclose(ours, expected, atol=1e-6)
    theirs = BlipImageProcessorPil(size={"height": 16, "width": 16})
    expected = theirs(picture[0], return_tensors="pt")["pixel_values"]
    assert torch.allclose(preprocess.clip_colours(preprocess.square(picture, 16)), expected, atol=1e-6)


def test_pictures_cut_by_hand() -> None:
    picture = DRAW.integers(0, 256, (1, 4, 8, 3), np.uint8)
    hand = torch.from_numpy(picture[0, :, 2:6].transpose(2, 0, 1) / 255).float()
    assert torch.equal(preprocess.centre_square(picture, 4)[0], hand), "nothing to resize: the middle, as it is"
    boxed = preprocess.letterbox(picture, 8)[0]
    assert torch.equal(boxed[:, 2:6], torch.from_numpy(picture[0].transpose(2, 0, 1) / 255).float())
    assert (boxed[:, :2] == 0).all()
    assert (boxed[:, 6:] == 0).all()
    grey = preprocess.clip_colours(preprocess.letterbox(np.full((1, 20, 20, 3), 51, np.uint8), 8))
    assert torch.allclose(grey, ((0.2 - MEAN) / DEVIATION).expand(1, 3, 8, 8), atol=1e-6)


def test_bilinear_as_tensorflow_1_does_it() -> None:
    line = np.zeros((1, 2, 2, 3), np.uint8)
    line[0, :, 1], line[0, 1] = 100, 200
    row = preprocess.like_tensorflow_1(line, 4)[0, 0]
    assert row[0].tolist() == [0, 50, 100, 100], "places 0, 0.5, 1, 1.5; beyond the last pixel it stays"
    assert row[:, 0].tolist() == [0, 100, 200, 200]
    picture = DRAW.integers(0, 256, (1, 6, 6, 3), np.uint8)
    assert torch.equal(preprocess.like_tensorflow_1(picture, 3)[0, 1], torch.from_numpy(picture[0, ::2, ::2, 1]).float())


@pytest.mark.parametrize(
    ("pictures", "named"),
    [
        (np.full((1, 20, 20, 3), np.nan), ("NaN",)),
        (np.full((1, 20, 20, 3), 2.0), ("0..1", 2)),
        (np.zeros((20, 20, 3), np.uint8), ("(picture, y, x, rgb)", "(20, 20, 3)")),
        (np.zeros((1, 20, 20, 4), np.uint8), ("(1, 20, 20, 4)",)),
    ],
)
def test_what_is_no_picture_is_refused(pictures: Array, named: tuple[object, ...]) -> None:
    with refused(InputError, "pictures", *named):
        preprocess.as_bytes(pictures)


def test_floats_and_bytes_are_the_same_pictures() -> None:
    assert (preprocess.as_bytes(made.PICTURES / 255) == made.PICTURES).all()


# CLIPScore, LAION-Aesthetics, BLIP-ITM


def test_clip_score_is_the_cosine_of_transformers_model(weights_folder: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model, words = (
        CLIPModel.from_pretrained(weights_folder / "clip").eval(),
        CLIPTokenizer.from_pretrained(weights_folder / "clip"),
    )
    cut = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    expected = []
    for picture, prompt in zip(made.PICTURES, made.PROMPTS, strict=True):  # one by one: no padding
        text = words(prompt, truncation=True, max_length=20, return_tensors="pt")
        with torch.no_grad():
            found = model(**text, **cut(picture, return_tensors="pt"))
        expected.append(float(found.logits_per_image / model.logit_scale.detach().exp()))
    clip = towers.Clip(find("clip", weights_folder / "clip"))
    assert clip.cosine(made.PICTURES, made.PROMPTS) == pytest.approx(expected, abs=1e-6)
    assert len({round(value, 3) for value in expected}) == 3
    score = towers.clip_score(clip, made.PICTURES, made.PROMPTS)
    assert score == pytest.approx(100 * np.maximum(expected, 0), abs=1e-4)


def test_clip_score_of_what_points_away_is_zero(weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = towers.Clip(find("clip", weights_folder / "clip"))
    monkeypatch.setattr(clip, "cosine", lambda images, prompts: np.array([-0.5, 0.25]))
    assert towers.clip_score(clip, made.PICTURES[:2], made.PROMPTS[:2]).tolist() == [0, 25]


def test_aesthetics_are_five_matrices_on_the_unit_vector(weights_folder: Path) -> None:
    path, pairs = made.aesthetic_file(weights_folder, 12)
    clip = towers.Clip(find("clip", weights_folder / "clip"))
    value = clip.see(made.PICTURES)
    assert torch.allclose(value.norm(dim=-1), torch.ones(3))
    for weight, bias in pairs:
        value = value @ weight.T + bias
    assert towers.Aesthetics(find("aesthetic", path), clip)(made.PICTURES) == pytest.approx(value[:, 0].numpy(), rel=1e-4)


def test_blip_is_the_softmax_of_its_matching_head(weights_folder: Path) -> None:
    from transformers import BertTokenizer, BlipForImageTextRetrieval
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    model = BlipForImageTextRetrieval.from_pretrained(weights_folder / "blip").eval()
    words, cut = BertTokenizer.from_pretrained(weights_folder / "blip"), BlipImageProcessorPil(size={"height": 16, "width": 16})
    matching, cosine = [], []
    for picture, prompt in zip(made.PICTURES, made.PROMPTS, strict=True):
        given: dict[str, Any] = {**words(prompt, return_tensors="pt"), **cut(picture, return_tensors="pt")}
        given.pop("token_type_ids", None)
        with torch.no_grad():
            no, yes = model(**given).itm_score[0].tolist()
            cosine.append(100 * float(model(**given, use_itm_head=False).itm_score))
        matching.append(100 * math.exp(yes) / (math.exp(yes) + math.exp(no)))
    blip = towers.Blip(find("blip", weights_folder / "blip"))
    assert blip.matching(made.PICTURES, made.PROMPTS) == pytest.approx(matching, rel=1e-4)
    assert blip.cosine(made.PICTURES, made.PROMPTS) == pytest.approx(cosine, rel=1e-3, abs=1e-3)
    assert len({round(value, 2) for value in matching}) == 3


def test_half_precision_is_near_and_a_device_must_be_here(weights_folder: Path) -> None:
    weights = find("clip", weights_folder / "clip")
    whole, half = towers.Clip(weights), towers.Clip(weights, dtype="bfloat16")
    assert half.cosine(made.PICTURES, made.PROMPTS) == pytest.approx(whole.cosine(made.PICTURES, made.PROMPTS), abs=0.05)
    assert (half.cosine(made.PICTURES, made.PROMPTS) != whole.cosine(made.PICTURES, made.PROMPTS)).any()
    with refused(InputError, "dtype", "float32, bfloat16, float16", "int8"):
        towers.Clip(weights, dtype="int8")
    for device in ["abacus"] if torch.cuda.is_available() else ["abacus", "cuda"]:
        with refused(InputError, "device", "cpu", device):
            towers.Clip(weights, device=device)


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


def test_hps_without_a_tokenizer_or_with_another_file(tmp_path: Path, no_weights: Path) -> None:
    path, _ = made.open_clip_file(tmp_path, 78)
    with refused(InputError, "hps", path.name, "tokenizer.json"):
        hps.Hps(find("hps", path))
    torch.save({"some.weight": torch.zeros(3)}, path)
    with refused(InputError, "hps", path, "visual.conv1.weight"):
        hps.Hps(find("hps", path))
