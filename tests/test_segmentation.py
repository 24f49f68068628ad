"""Tokens clustered on few channels: planted squares are found, scores follow their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from messages import names, refused
from PIL import Image

import interp
from interp.analysis import overlap, segmentation


def states(prompts: int = 3, blocks: int = 2) -> tuple[xr.Dataset, np.ndarray]:  # type: ignore[type-arg]
    """Hidden states of 8 x 8 tokens and 20 channels in which channels 3 and 7 are large on a square; and the squares."""
    draw = np.random.default_rng(0)
    values = 0.3 * draw.normal(size=(prompts, 1, blocks, 8, 8, 20))
    truth = np.zeros((prompts, 8, 8), bool)
    for row in range(prompts):
        truth[row, row : row + 4, 2:6] = True
        values[row][..., [3, 7]] += np.where(truth[row], 9.0, 4.0)[None, None, :, :, None]
    tokens = np.arange(64)
    coordinates = {
        "prompt": np.arange(prompts),
        "step": [9],
        "block": np.arange(blocks),
        "channel": np.arange(20),
        "token_y": ("token", tokens // 8),
        "token_x": ("token", tokens % 8),
    }
    flat = values.reshape(prompts, 1, blocks, 64, 20)
    return xr.Dataset({"hidden": (("prompt", "step", "block", "token", "channel"), flat)}, coordinates), truth


@pytest.mark.parametrize("values", ["magnitude", "signed"])
def test_a_planted_square_is_the_foreground(values: str) -> None:
    data, truth = states()
    found = segmentation.masks(data, [3, 7], values=values)
    np.testing.assert_array_equal(found["mask"].isel(step=0, block=1), truth)
    assert found["mask"].dims == ("prompt", "step", "block", "token_y", "token_x")
    assert found["heat"].max() <= 2.0


def test_signed_and_magnitude_differ_where_the_foreground_is_negative() -> None:
    data, truth = states()
    data["hidden"] = -data["hidden"]
    np.testing.assert_array_equal(segmentation.masks(data, [3, 7])["mask"].isel(step=0, block=0), truth)
    np.testing.assert_array_equal(segmentation.masks(data, [3, 7], values="signed")["mask"].isel(step=0, block=0), ~truth)


def test_scores_of_top_bottom_and_random_channels() -> None:
    data, truth = states(prompts=4)
    large = truth.repeat(4, axis=1).repeat(4, axis=2)  # masks of 32 x 32 pixels
    found = segmentation.score(data, large, k=2, repeats=3)
    np.testing.assert_allclose(found["iou"].sel(strategy="top"), 1.0)
    assert (found["iou"].sel(strategy="bottom") < 0.6).all()
    data["hidden"] = xr.where(data["channel"].isin([3, 7]), 13.0 - data["hidden"], data["hidden"]).transpose(
        *data["hidden"].dims
    )
    turned = segmentation.score(data, large, k=2, repeats=3)  # now the square is the smaller side
    assert (turned["iou"].sel(strategy="top") < 0.1).all()
    np.testing.assert_allclose(turned["either"].sel(strategy="top"), 1.0)
    assert (found["either"] >= found["iou"]).all()
    np.testing.assert_allclose(found["trivial"].sel(baseline="everything"), 0.25)
    assert 0.2 < found["trivial"].sel(baseline="centre disc") < 0.9


def test_iou_is_intersection_over_union() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:2], b[1:3] = True, True
    assert overlap.iou(a, b) == pytest.approx(4 / 12)
    assert overlap.iou(a & ~a, b & ~b) == 1.0
    half = np.zeros((2, 64, 64), bool)
    half[:, :32] = True
    disc = overlap.centre_disc(half)
    assert disc.mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_array_equal(disc, disc[::-1, ::-1])


def test_constant_channels_have_no_foreground() -> None:
    mask, _ = segmentation.cluster(np.ones((16, 3)))
    assert not mask.any()


def test_similarity_and_principal_components(tiny_run: interp.Run) -> None:
    here = tiny_run.hidden["image"]["hidden"].isel(prompt=1, step=-1, block=2).to_numpy()
    found = segmentation.similarity(tiny_run, 5, prompt=1, block=2)
    expected = [token @ here[5] / np.linalg.norm(token) / np.linalg.norm(here[5]) for token in here]
    np.testing.assert_allclose(found.to_numpy().ravel(), expected, atol=1e-5)
    maps = segmentation.principal_map(tiny_run, 2, prompt=1, block=2)
    centred = here - here.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    np.testing.assert_allclose(maps.attrs["explained"], (values / values.sum())[:2], atol=1e-4)
    assert maps.dims == ("component", "token_y", "token_x")


def test_masks_are_read_by_row(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4] = 255
    Image.fromarray(mask).save(tmp_path / "00004-mask.png")
    np.testing.assert_array_equal(segmentation.read_masks(tmp_path, [4])[0], mask > 0)
    with refused(interp.InputError, "masks", 5, "00005-mask.png", "00005.png"):
        segmentation.read_masks(tmp_path, [4, 5])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"values": "squared"}, ("values", "squared", "magnitude", "signed")),
        ({"blocks": [7]}, ("blocks", 7, "-2..1")),
        ({"steps": [3]}, ("steps", 3, 9)),
        ({"channels": None}, ("channels", "hidden")),
    ],
)
def test_impossible_maps_are_refused(arguments: dict, words: tuple[object, ...]) -> None:  # type: ignore[type-arg]
    data, _ = states()
    with refused(interp.InputError, *words):
        segmentation.masks(data, **{"channels": [3], **arguments})


def test_a_part_of_the_tokens_is_no_map() -> None:
    data, truth = states()
    with refused(interp.InputError, "tokens", 63, "8 x 8"):
        segmentation.masks(data.isel(token=slice(1, None)), [3])
    with refused(interp.InputError, "masks", 3):
        segmentation.score(data, truth[:2], k=2)
    with refused(interp.InputError, "k", 20, "1..19"):
        segmentation.score(data, truth, k=20)


def test_seeds_of_one_text_are_one_sample() -> None:
    data, truth = states(prompts=8)
    texts = ("prompt", np.array(list("aabbccdd"), dtype=object))
    found = segmentation.score(data.assign_coords(prompt_text=texts, seed=("prompt", range(8))), truth, k=2)
    assert "4 prompt texts" in found.attrs["interval"]
    assert (found["iou_low"] <= found["iou"]).all()
    shared = segmentation.score(data.assign_coords(prompt_text=texts, seed=("prompt", [0, 1] * 4)), truth, k=2)
    assert not names(shared.attrs["interval"], "none", "2 seeds")
    assert shared["iou_low"].isnull().all()
    np.testing.assert_array_equal(shared["iou"], found["iou"])
