"""Descriptors against plain hooks and formulas written by hand; correspondence against planted answers."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from bad_inputs import run as command
from conftest import full, prompts_for
from messages import names, refused
from PIL import Image

import interp
from interp.analysis import correspondence
from interp.analysis.correspondence import Pair
from interp.base.errors import InputError
from interp.experiments.clean import calls_of
from interp.experiments.descriptors import (
    KINDS,
    PRESETS,
    Extractor,
    default_blocks,
    default_channels,
    extract,
    extractor,
)
from interp.experiments.keypoint_pairs import demo_pairs, read_pairs
from interp.models import autoencoder
from interp.models.anatomy import Tap
from interp.models.catalog import CATALOG
from interp.models.demo import drawn_pairs as demo
from interp.models.demo import world
from interp.models.skeleton import skeleton

CASES = {  # a block of every kind: its number, its module, its norm
    "tiny_model": [(1, "transformer_blocks.1", "norm1")],
    "flux_model": [(1, "transformer_blocks.1", "norm1"), (3, "single_transformer_blocks.1", "norm")],
    "dit_model": [(1, "transformer_blocks.1", "norm1")],
}


@pytest.mark.parametrize(("name", "block", "path", "norm"), [(name, *case) for name, cases in CASES.items() for case in cases])
def test_descriptors_are_the_blocks_own(name: str, block: int, path: str, norm: str, request: pytest.FixtureRequest) -> None:
    model: interp.Model = request.getfixturevalue(name)
    assert model.anatomy.blocks[block].path == path
    made = extractor(model, prompts_for(name)[:2], channels=[2, 7], blocks=[block], steps_at=[1], steps=3)
    picture = noise_picture(made)
    module = model.pipe.transformer.get_submodule(path)
    seen: dict[str, torch.Tensor] = {}

    def enters(block: object, arguments: tuple[object, ...], named: dict[str, torch.Tensor]) -> None:
        seen["state"] = (named["hidden_states"] if "hidden_states" in named else arguments[0])[0].clone()  # type: ignore[index]

    def modulates(norm: object, arguments: object, output: tuple[torch.Tensor, ...]) -> None:
        seen["adaln"] = output[0][0][-len(seen["state"]) :].clone()  # image tokens come last

    def projects(linear: object, arguments: object, output: torch.Tensor) -> None:
        width = seen["state"].shape[-1]
        seen["shift"], seen["scale"] = output[0, :width].clone(), output[0, width : 2 * width].clone()

    handles = [
        module.register_forward_pre_hook(enters, with_kwargs=True),
        module.get_submodule(norm).register_forward_hook(modulates),
        module.get_submodule(norm).linear.register_forward_hook(projects),
    ]
    try:
        found = made.describe(picture, 0)[1, block]  # the last of its calls is the one at the level
    finally:
        for handle in handles:
            handle.remove()

    def by_hand(state: torch.Tensor) -> torch.Tensor:
        deviation = torch.sqrt(state.var(-1, keepdim=True, unbiased=False) + 1e-6)
        return (1 + seen["scale"]) * (state - state.mean(-1, keepdim=True)) / deviation + seen["shift"]

    cut = seen["state"].clone()
    cut[:, [2, 7]] = 0
    np.testing.assert_array_equal(found["raw"], seen["state"])
    np.testing.assert_array_equal(found["raw_discard"], cut)
    np.testing.assert_allclose(found["adaln"], seen["adaln"], atol=1e-6)
    np.testing.assert_allclose(found["adaln_discard"], by_hand(cut).detach(), atol=1e-5)
    assert np.abs(found["adaln_discard"] - found["adaln"]).max() > 1e-3
    for draw, chosen in enumerate(made.controls(found["raw"].shape[1])):
        assert len(set(chosen) - {2, 7}) == 2, "as many, and other ones"
        other = seen["state"].clone()
        other[:, list(chosen)] = 0
        np.testing.assert_array_equal(found["raw_control"][draw], other)
        np.testing.assert_allclose(found["adaln_control"][draw], by_hand(other).detach(), atol=1e-5)
    assert found["adaln_control"].shape == (3, *found["adaln"].shape)


ALSO = full(*(f"{name}_model" for name in ("qwenimage", "pixart", "sigma", "wan", "auraflow")))


@pytest.mark.parametrize("name", ["flux2_model", "sana_model", *ALSO])
def test_adaln_of_every_family_is_what_its_blocks_are_given(name: str, request: pytest.FixtureRequest) -> None:
    model: interp.Model = request.getfixturevalue(name)
    made = extractor(model, prompts_for(name)[:1], channels=[2], steps_at=[0], steps=2)
    picture = noise_picture(made)
    given: dict[int, torch.Tensor] = {}
    handles = []
    for block in made.blocks:
        described = model.anatomy.blocks[block]
        tap = next(tap for tap in described.taps if (tap.kind, tap.gate, tap.stream) == ("modulated", "attn", "image"))

        def keep(module: object, arguments: object, named: object, output: object, number: int = block, at: Tap = tap) -> None:
            value = output if at.item is None else output[at.item]  # type: ignore[index]
            given[number] = value if at.side == "output" else [*arguments, *named.values()][0]  # type: ignore[attr-defined, misc]

        module = model.pipe.transformer.get_submodule(f"{described.path}.{tap.module}")
        handles.append(module.register_forward_hook(keep, with_kwargs=True))
    try:
        found = made.describe(picture, 0)
    finally:
        for handle in handles:
            handle.remove()
    for block in made.blocks:
        ours = found[0, block]["adaln"]
        theirs = given[block].reshape(-1, ours.shape[-1])[-len(ours) :]  # joint states: image tokens come last
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=f"block {block}")


def correspond(model: interp.Model, pairs: list[Pair], **given: object) -> xr.Dataset:
    with tempfile.TemporaryDirectory() as folder:
        return interp.features(model, pairs, out=Path(folder) / "f.zarr", noises=1, **given).run().result("features")


def noise_picture(made: Extractor) -> np.ndarray:
    plan = made.prepared.plan
    return np.random.default_rng(0).integers(0, 255, (plan.height, plan.width, 3), np.uint8)


def test_the_level_is_the_steps(tiny_model: interp.Model) -> None:
    made = extractor(tiny_model, ["a red cat"], channels=[1], blocks=[1], steps_at="0,2", steps=3)
    picture = np.full((64, 64, 3), 120, np.uint8)
    found = made.describe(picture, 0)
    assert not np.allclose(found[0, 1]["raw"], found[2, 1]["raw"])
    again = made.describe(picture, 0)
    np.testing.assert_array_equal(found[2, 1]["raw"], again[2, 1]["raw"])


def test_pictures_are_as_large_as_the_model_draws(tiny_model: interp.Model) -> None:
    made = extractor(tiny_model, ["a red cat"], channels=[1], blocks=[1], steps=2)
    with refused(InputError, "pictures", "64 x 64", "32 x 64"):
        made.describe(np.zeros((32, 64, 3), np.uint8), 0)


def test_every_picture_has_noise_of_its_own(tiny_model: interp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    made = extractor(tiny_model, ["a red cat"], channels=[1], blocks=[1], steps_at="0,2", steps=3)
    picture, plan = np.full((64, 64, 3), 120, np.uint8), made.prepared.plan
    told = calls_of(made.prepared, plan.rows()[0]).arguments
    clean = autoencoder.encode(tiny_model.pipe, tiny_model.loaded.spec, torch.full((1, 64, 64, 3), 120 / 255))

    def noise_at(step: int, draw: int) -> torch.Tensor:
        sigma = float(made.prepared.schedule.sigmas[step])
        return (made._call(told, step, picture, (draw,))["hidden_states"] - (1 - sigma) * clean) / sigma

    torch.testing.assert_close(noise_at(0, 0), noise_at(2, 0), atol=1e-5, rtol=0)
    assert abs(float(noise_at(0, 0).std()) - 1) < 0.1
    both = torch.stack([noise_at(0, 0).flatten(), noise_at(0, 1).flatten()])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.15
    drawn: list[int] = []
    describe = Extractor.describe
    monkeypatch.setattr(Extractor, "describe", lambda self, *given: drawn.append(given[2]) or describe(self, *given))
    here = Pair(np.stack([picture, picture]), ("a red cat", "the dog"), np.full((2, 1, 2), 9.0), 20.0)
    correspond(tiny_model, [here, here], channels=[1], blocks=[1], steps=2)
    assert drawn == [0, 1, 2, 3]


def test_descriptors_as_a_dataset(tiny_model: interp.Model) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    given = {"channels": [1], "blocks": [1, 2], "steps_at": [0], "steps": 2}
    found = extract(tiny_model, pictures, ["a red cat", "the dog"], **given)
    made = extractor(tiny_model, ["a red cat", "the dog"], **given)
    by_hand = made.describe(pictures[1], 1, 1)[0, 2]["adaln_discard"]
    one = found["descriptors"].sel(kind="adaln_discard", step=0, block=2).isel(picture=1)
    assert one.dims == ("token_y", "token_x", "channel")
    np.testing.assert_array_equal(one.to_numpy().reshape(by_hand.shape), by_hand)
    with refused(InputError, "prompts", 1, 2):
        extract(tiny_model, pictures, ["a red cat"], **given)


def test_keypoints_are_where_the_pictures_show_them() -> None:
    pairs = demo.scenes(40)
    assert len(pairs) == 40
    for scene in (scene for pair in pairs for scene in pair):
        cover, found = scene.coverage(), demo.points(scene)
        assert (cover[tuple(found.astype(int).T)] > 0.4).all(), (scene.shape, found)
        rows, columns = np.nonzero(scene.mask())
        assert demo.box(scene) == max(rows.max() - rows.min(), columns.max() - columns.min()) + 1
    for one, other in pairs:
        assert (one.shape, one.texture) == (other.shape, other.texture)
        assert (one.position, one.size) != (other.position, other.size)
        moved = (demo.points(other) - demo.points(other).mean(0)) / world.SIZES[other.size]
        np.testing.assert_allclose(moved, (demo.points(one) - demo.points(one).mean(0)) / world.SIZES[one.size], atol=1e-9)


def planted() -> Pair:
    points = np.array([[[4.0, 4.0], [60.0, 20.0]], [[12.0, 44.0], [36.0, 60.0]]])
    return Pair(np.zeros((2, 64, 64, 3), np.uint8), ("a", "b"), points, 16.0)


def test_pck_of_planted_descriptors() -> None:
    pair, grid = planted(), (8, 8)
    tokens = correspondence.token_of(pair.points[0], grid, (64, 64))
    assert tokens.tolist() == [0, 7 * 8 + 2]
    assert correspondence.token_of(pair.points[1], grid, (64, 64)).tolist() == [1 * 8 + 5, 4 * 8 + 7]
    source, target = np.eye(64), np.zeros((64, 64))
    target[13], target[39] = 5 * source[0], 0.1 * source[58]  # the true tokens, whatever their size
    target[0] = 0.01
    found = correspondence.match(source, target, tokens)
    assert found.tolist() == [13, 39]
    assert correspondence.correct(pair, found, grid, [0.0, 0.3]).tolist() == [1.0, 1.0]
    wrong = correspondence.correct(pair, np.array([13, 38]), grid, [0.3, 0.5])
    assert wrong.tolist() == [0.5, 1.0], "a neighbour is 8 pixels off: half of the box"
    beside = correspondence.controls(pair, grid, [0.3])
    assert beside["oracle"].tolist() == [1.0]
    assert beside["chance"][0] == pytest.approx(1 / 64)
    assert beside["same place"].tolist() == [0.0], "the points have moved"
    stayed = Pair(pair.pictures, pair.prompts, pair.points[[1, 1]], pair.box)
    assert correspondence.controls(stayed, grid, [0.3])["same place"].tolist() == [1.0]


def test_pixels_are_matched_by_interpolated_descriptors() -> None:
    """Torch's own interpolation, and every pixel compared at once."""
    draw, grid, size = np.random.default_rng(0), (4, 6), (20, 24)
    source, target = draw.normal(size=(2, 24, 5))
    pixels = np.array([0, 7, 123, 252])
    ours, theirs = (
        torch.nn.functional.interpolate(torch.from_numpy(v.T.reshape(1, 5, *grid).copy()), size=size, mode="bilinear")[0]
        for v in (source, target)
    )
    ours, theirs = (torch.nn.functional.normalize(v.reshape(5, -1), dim=0) for v in (ours, theirs))
    expected = (ours[:, pixels].T @ theirs).argmax(dim=1)
    assert correspondence.match_pixels(source, target, pixels, grid, size).tolist() == expected.tolist()
    inside = np.array([177, 252])  # beyond the outer tokens' centres all pixels are alike
    assert correspondence.match_pixels(source, source, inside, grid, size).tolist() == inside.tolist()


def test_descriptors_are_means_over_noises(tiny_model: interp.Model) -> None:
    made = extractor(tiny_model, ["a red cat"], channels=[3], blocks=[1], steps=2)
    picture = noise_picture(made)
    (both,) = made.describe(picture, 0, 5, noises=2).values()
    (first,) = made.describe(picture, 0, 5).values()
    second = 2 * both["raw"] - first["raw"]
    assert np.abs(second - first["raw"]).max() > 1e-3
    (again,) = made.describe(picture, 0, 5, noises=2).values()
    np.testing.assert_array_equal(again["adaln_control"], both["adaln_control"])


def test_intervals_and_paired_gains() -> None:
    draw = np.random.default_rng(0)
    raw = draw.random((30, 1, 1, 1)) / 2
    shares = {kind: raw + 0.1 * number for number, kind in enumerate(KINDS)}
    beside = {name: np.full((30, 1), 0.5) for name in correspondence.CONTROLS}
    found = correspondence.summarise(shares, beside, {"step": [0], "block": [1], "threshold": [0.1]}, {})
    told = {
        "raw_discard less raw": 0.1,
        "raw_control less raw": 0.4,
        "adaln less raw": 0.2,
        "adaln_discard less adaln": 0.1,
        "adaln_control less adaln": 0.3,
    }
    assert found["difference"].to_numpy().tolist() == list(told)
    np.testing.assert_allclose(found["gain"].squeeze(), list(told.values()))
    np.testing.assert_allclose(found["gain_low"].squeeze(), list(told.values()), err_msg="paired: nothing varies")
    assert float(found["pck_low"][0].squeeze()) < float(found["pck"][0].squeeze()) < float(found["pck_high"][0].squeeze())


def test_the_command(tmp_path: Path) -> None:
    terms = {"model": "demo", "pairs": 2, "blocks": 4, "steps-at": 2, "steps": 4, "noises": 1}
    words = ["features", "--json", *(text for name, value in terms.items() for text in (f"--{name}", str(value)))]
    code, out, err = command([*words, "--out", str(tmp_path / "f.zarr"), "--figures", str(tmp_path)])
    assert code == 0, err
    found = json.loads(out)
    assert {row["descriptor"] for row in found["PCK"]["rows"]} == {*KINDS, "none: oracle", "none: chance", "none: same place"}
    assert len(found["differences"]["rows"]) == 5 * 4
    assert found["PCK"]["channels"] == [29]
    assert (tmp_path / "pck.html").exists()
    by_hand = correspond(interp.load("demo"), demo_pairs(2), channels=[29], blocks=[4], steps_at=[2], steps=4)
    row = next(row for row in found["PCK"]["rows"] if row["descriptor"] == "adaln")
    assert row["PCK@0.2"] == pytest.approx(float(by_hand["pck"].sel(kind="adaln", threshold=0.2).squeeze()))


def test_pairs_of_a_file(tmp_path: Path, tiny_model: interp.Model) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / f"{name}.png")
    entry = {"source": "a.png", "target": "b.png", "prompts": ["a red cat", "the dog"], "keypoints": [[[3, 4], [50, 60]]]}
    (tmp_path / "p.json").write_text(json.dumps([{**entry, "box": [20, 30]}]))
    (pair,) = read_pairs(tmp_path / "p.json")
    assert pair.points.tolist() == [[[3.0, 4.0]], [[50.0, 60.0]]]
    assert pair.box == 30.0
    found = correspond(tiny_model, [pair], channels=[1, 2], blocks=[1, 2], steps=2)
    assert np.isnan(found["pck_low"]).all(), "one pair has no interval"
    assert found.sizes["block"] == 2


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ([], ("p.json",)),
        ([{"source": "a.png"}], ("p.json", "pair 0", "target")),
        ([{"keypoints": [[1, 2]], "box": [1, 1]}], ("p.json", "pair 0", "keypoints")),
        ([{"keypoints": [[[1, 2], [99, 2]]], "box": [1, 1]}], ("p.json", "pair 0", "keypoints", "0..63")),
        ([{"keypoints": [[[1, 2], [9, 2]]], "box": [0, 0]}], ("p.json", "pair 0", "box", 0)),
        ([{"source": "no.png", "keypoints": [[[1, 2], [9, 2]]], "box": [1, 1]}], ("p.json", "pair 0", "no.png")),
    ],
)
def test_bad_pairs_are_refused(entry: list[dict[str, object]], named: tuple[object, ...], tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    whole = {"source": "a.png", "target": "a.png", "prompts": ["a", "b"]}
    entries = [one if one == {"source": "a.png"} else {**whole, **one} for one in entry]
    (tmp_path / "p.json").write_text(json.dumps(entries))
    with refused(InputError, *named):
        read_pairs(tmp_path / "p.json")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--blocks", "0"], ("blocks", 1, 0)),
        (["--channels", "0-60"], ("channels", 96, 61)),
        (["--steps-at", "40"], ("steps_at", 40)),
        (["--pairs", "none.json"], ("pairs", "none.json")),
        (["--pairs", "0"], ("pairs", 1, 0)),
    ],
)
def test_bad_options_are_refused(words: list[str], named: tuple[object, ...]) -> None:
    code, out, err = command(["features", "--model", "demo", *words])
    assert code == 2, err
    assert names(err, *named) == []
    assert out == ""


def test_published_channels_and_taps(demo_model: interp.Model, tiny_model: interp.Model) -> None:
    assert default_channels(demo_model) == [29]
    assert default_blocks(demo_model) is None
    for name, (channels, _) in PRESETS.items():
        claim = CATALOG[name].massive
        assert claim is None or claim.channels == channels, f"{name}: DG found the same"
    flux = SimpleNamespace(name="flux")
    assert default_channels(flux) == [154, 1446]
    assert default_blocks(flux) == [28]
    assert skeleton("flux").anatomy.blocks[28].kind == "single", "DiTF taps what enters a single block"
    with refused(InputError, "channels", "interp massive"):
        default_channels(tiny_model)
