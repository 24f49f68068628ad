"""Videos by latent frame: statistics of frames, maps of one frame, and massive channels over frames (arXiv 2603.17825)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from bad_inputs import run as command
from conftest import PROMPTS, every_family, prompts_for
from messages import refused
from planted_frames import ROWS as ROWS_OF_FRAME
from planted_frames import null, planted
from test_dashboard import opened, text_of

import interp
from interp.analysis import segmentation
from interp.analysis.frames import PARTS, over_frames
from interp.base.plan import Record
from interp.base.sites import Site
from interp.dashboard import choose
from interp.figures import channels, maps
from interp.tracing import recorders
from interp.tracing.reductions import FramesRecorder

SHAPE = {"height": 64, "width": 48, "settings": {"num_frames": 5}}
FRAMES, ROWS, COLUMNS = 3, 8, 6  # of the tokens: two pictures a latent frame, eight pixels a token


@pytest.fixture(scope="module")
def video(wan_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> interp.Run:
    """A video's run that keeps everything."""
    record = interp.Record(hidden=True, frames=True)
    out = tmp_path_factory.mktemp("frames") / "run.zarr"
    return interp.trace(wan_model, PROMPTS[:3], out=out, steps=3, batch_size=2, repeats=2, record=record, **SHAPE)


def by_frame(states: Any, sizes: tuple[int, ...]) -> dict[str, Any]:
    """The statistics in numpy, of (..., token, channel) states: (..., frame, channel)."""
    grid = np.asarray(states, np.float64).reshape(*states.shape[:-2], *sizes, states.shape[-1])
    size = abs(grid)
    ends = np.concatenate([size[..., :1, :, :], size[..., -1:, :, :]], axis=-3)
    return {
        "mean": grid.mean((-3, -2)),
        "mean_abs": size.mean((-3, -2)),
        "max_abs": size.max((-3, -2)),
        "edge_abs": ends.mean((-3, -2)),
    }


def agree(found: Any, expected: dict[str, Any], stated: float = 1e-6) -> None:
    """To 1e-6 of a channel's mean |x|."""
    for name, values in expected.items():
        assert (abs(found[name] - values) <= stated * expected["mean_abs"] + 1e-9).all(), name


def test_statistics_of_frames_are_those_of_the_stored_states(video: interp.Run) -> None:
    states = video.hidden["image"]["hidden"]
    found = video.frames["image"].to_dataset()
    assert found["mean"].dims == ("prompt", "step", "block", "frame", "channel")
    assert found["mean"].shape == (*states.shape[:3], FRAMES, states.sizes["channel"])
    expected = by_frame(states.to_numpy(), (FRAMES, ROWS, COLUMNS))
    agree({name: found[name].to_numpy() for name in expected}, expected)
    own = video.of_stream("stats", "generated")
    np.testing.assert_allclose(found["mean_abs"].mean("frame"), own["mean_abs"], rtol=1e-5)
    np.testing.assert_array_equal(found["max_abs"].max("frame"), own["max_abs"])
    assert "frames" in video.facts()["keeps"]


@pytest.mark.parametrize("small", [0, recorders.SMALL])
def test_a_large_state_is_reduced_as_a_small_one(small: int, wan_model: interp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """States of several blocks of the cache, and planted values in one frame and in its first row."""
    monkeypatch.setattr(recorders, "SMALL", small)
    sizes, width, anatomy = (4, 40, 30), wan_model.anatomy.stream("image").width, wan_model.anatomy
    states = torch.randn(2, 4 * 40 * 30, width, generator=torch.Generator().manual_seed(0))
    states[:, 1200:2400, 3] = 50.0  # the second frame
    states[:, 2400:2430, 5] = -7.0  # the third frame's first row
    recorder = FramesRecorder(anatomy, "image", 2, sizes)
    for step in range(2):
        for site in recorder.order:
            recorder.receiver(site)(step, states * (step + 1))
        recorder.end_step(step)
    for position in range(2):
        found = recorder.row(position)["frames/image"]
        for step in range(2):
            expected = by_frame(states[position].numpy() * (step + 1), sizes)
            agree({name: values[step, 0] for name, values in found.items()}, expected)
    first = recorder.row(0)["frames/image"]
    assert first["mean"][0, 0, :, 3].round(3).tolist()[1] == 50.0
    assert abs(first["edge_abs"][0, 0, 2, 5] - (7.0 + abs(states[0, 3570:3600, 5]).mean().item()) / 2) < 1e-5
    assert Site(0, "image", "hidden") in recorder.sites


@pytest.mark.parametrize("name", every_family(["ltx_model", "mochi_model"]))
def test_frames_of_every_family_or_a_refusal(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = request.getfixturevalue(name)
    record = interp.Record(stats=False, gates=False, hidden=True, frames=True)
    texts = prompts_for(name)[:1]
    if not any(stream.in_frames for stream in model.anatomy.streams):
        with refused(interp.InputError, "record.frames", "frame axis"):
            interp.trace(model, texts, out=tmp_path / "r.zarr", steps=2, record=record)
        return
    run = interp.trace(model, texts, out=tmp_path / "r.zarr", steps=2, record=record)
    for stream, child in run.frames.children.items():
        sizes = next(tuple(own["sizes"]) for own in run.attributes["streams"] if own["name"] == stream)
        states = run.hidden[stream]["hidden"]
        expected = by_frame(states.to_numpy(), sizes)
        agree({n: child[n].sel(block=states["block"]).to_numpy() for n in expected}, expected)


def test_a_model_without_frames_is_refused(tiny_model: interp.Model, tmp_path: Path) -> None:
    with refused(interp.InputError, "record.frames", "image (y, x)", "leave frames out"):
        interp.trace(tiny_model, PROMPTS[:1], out=tmp_path / "r.zarr", steps=2, record=interp.Record(frames=True))


def test_plans_without_frames_are_those_of_earlier_versions() -> None:
    assert "frames" not in Record().to_json()
    assert Record(frames=True).to_json()["frames"] is True
    assert Record.from_json(Record(frames=True).to_json()).frames
    assert not Record.from_json(Record().to_json()).frames
    assert Record.parse("stats,gates,frames") == Record(frames=True)
    with refused(interp.InputError, "record.frames", "True or False", 3):
        Record(frames=3)  # type: ignore[arg-type]


def test_a_store_without_frames_says_how_to_keep_them(tiny_run: interp.Run) -> None:
    with refused(interp.StoreError, "latent frames", "--record stats,gates,frames"):
        tiny_run.frames  # noqa: B018


PLACE = {"prompt": 2, "step": 1, "block": 1}


@pytest.mark.parametrize("frame", [None, 0, 2, -1])
def test_maps_of_a_frame_are_its_tokens(video: interp.Run, frame: int | None) -> None:
    """Of the stored states in numpy; by default the middle frame."""
    at: dict[str, Any] = {**PLACE, "frame": frame}
    here = FRAMES // 2 if frame is None else frame % FRAMES
    states = video.hidden["image"]["hidden"].sel(PLACE).to_numpy().reshape(FRAMES, ROWS, COLUMNS, -1)[here]
    found = interp.tokens.channel_map(video, 3, **at)
    np.testing.assert_array_equal(found, abs(states[..., 3]))
    assert int(found["frame"]) == here
    np.testing.assert_array_equal(interp.tokens.token(video, 4, 5, **at), states[4, 5])
    order = np.argsort(-abs(states).mean((0, 1)), kind="stable")[:4].tolist()
    assert interp.tokens.largest(video, 4, **at) == order
    both = interp.tokens.set_map(video, order, **at)
    mask, heat = segmentation.cluster(abs(states[..., sorted(order)]).reshape(ROWS * COLUMNS, -1))
    np.testing.assert_array_equal(both["mask"], mask.reshape(ROWS, COLUMNS))
    np.testing.assert_allclose(both["heat"], heat.reshape(ROWS, COLUMNS), rtol=1e-6)
    whole = segmentation.masks(video, order, steps=[1], blocks=[1], frame=frame)
    np.testing.assert_array_equal(whole["mask"].isel(prompt=2, step=0, block=0), both["mask"])
    unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
    alike = segmentation.similarity(video, 7, frame=frame, **PLACE)
    np.testing.assert_allclose(alike, unit @ unit[1, 1], atol=1e-6)
    assert segmentation.principal_map(video, 2, frame=frame, **PLACE).sizes["token_y"] == ROWS
    assert f"frame {here}" in maps.over_picture(found).layout.title.text
    assert f"frame {here}" in maps.clusters(whole).layout.title.text
    assert f"frame {here}" in maps.token_channels(interp.tokens.token(video, 4, 5, **at)).layout.title.text


def test_planted_squares_are_found_in_their_frame() -> None:
    """Another square in each frame: the masks and their scores are those of the asked frame."""
    frames, side = 3, 8
    values = 0.1 * np.random.default_rng(0).normal(size=(2, 1, 1, frames, side, side, 6))
    truth = np.zeros((frames, side, side), bool)
    for frame in range(frames):
        truth[frame, frame : frame + 4, frame : frame + 3] = True
    values[..., [1, 4]] += np.where(truth, 9.0, 4.0)[..., None]
    place = np.unravel_index(np.arange(frames * side * side), (frames, side, side))
    along = {f"token_{axis}": ("token", own) for axis, own in zip(("frame", "y", "x"), place, strict=True)}
    axes = ("prompt", "step", "block", "token", "channel")
    states = values.reshape(2, 1, 1, -1, 6)
    data = xr.Dataset({"hidden": (axes, states)}, {n: range(size) for n, size in zip(axes, states.shape, strict=True)} | along)
    for frame in range(frames):
        found = segmentation.masks(data, [1, 4], frame=frame)
        assert (found["mask"] == truth[frame]).all()
        here = segmentation.score(data, np.stack([truth[frame]] * 2), k=2, frame=frame)
        assert here["iou"].sel(strategy="top").item() == 1.0
    assert (segmentation.masks(data, [1, 4])["mask"] == truth[1]).all()


def test_a_frame_that_is_not_there_is_refused(video: interp.Run, tiny_run: interp.Run) -> None:
    for frame in (FRAMES, -FRAMES - 1):
        with refused(interp.InputError, "frame", frame, f"-{FRAMES}..{FRAMES - 1}"):
            interp.tokens.channel_map(video, 3, frame=frame, **PLACE)
        with refused(interp.InputError, "frame", frame, f"-{FRAMES}..{FRAMES - 1}"):
            segmentation.masks(video, [3], frame=frame)
    with refused(interp.InputError, "frame", 1, "-1..0"):
        segmentation.masks(tiny_run, [3], frame=1)
    assert "frame" not in segmentation.masks(tiny_run, [3], frame=0).coords


def test_the_picture_of_a_frame(video: interp.Run) -> None:
    """The first latent frame holds one picture, each other one two: the last of them."""
    assert [interp.tokens.picture_of(video, frame) for frame in range(FRAMES)] == [0, 2, 4]
    at = interp.tokens.picture_of(video)
    np.testing.assert_array_equal(video.images["video"].isel(frame=at), video.images["image"])


@pytest.mark.parametrize("frame", [None, 2])
def test_the_page_of_places_shows_a_frame(video: interp.Run, frame: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    choose._stores.clear()
    asked = {} if frame is None else {"frame": str(frame)}
    app = opened(monkeypatch, video.path.parent, "where", run=video.path.name, set="one channel", **asked)
    assert not app.exception
    assert not app.error, text_of(app, "error")
    code = "\n".join(element.value for element in app.code)
    here = 1 if frame is None else frame
    assert f"frame={here}" in code
    assert f".isel(frame={2 * here})" in code
    choose._stores.clear()


def test_a_planted_order_of_frames_is_found() -> None:
    """First 3 (early) to 1.5 (late) times the insides, ends 1.2 times."""
    data = planted([3.0, 3.0, 2.0, 2.0, 1.5, 1.5], 1.2)
    found = over_frames(data, [3, 7])
    assert found["relative"].dims == ("set", "third", "block", "frame")
    massive, others = (found.sel(set=name) for name in ("massive", "ordinary"))
    inside = 1 + 2 / ROWS_OF_FRAME * 0.2  # of a whole frame with its ends
    for third, first in (("early", 3.0), ("middle", 2.0), ("late", 1.5)):
        here, mean = massive.sel(third=third), (first + 4 * inside) / 5
        np.testing.assert_allclose(
            here["size"].sel(part=list(PARTS)).mean("block"), [first / mean, 1.2 / mean, 1 / mean], rtol=0.03
        )
        np.testing.assert_allclose(here["order"].mean("block"), [first / 1.2, 1.2], rtol=0.03)
        np.testing.assert_allclose(here["relative"].isel(frame=0), first / mean, rtol=0.03)
    assert (massive["order_low"] <= massive["order"]).all()
    assert (massive["order_low"] > 1).all()
    np.testing.assert_allclose(massive["fade"], 2.0, rtol=0.05)
    assert (massive["fade_low"] > 1.5).all()
    np.testing.assert_allclose(others["order"], 1.0, rtol=0.02)
    np.testing.assert_allclose(others["relative"], 1.0, rtol=0.02)
    assert (found["beyond"] <= 0.01).all()
    assert (found["fade_beyond"] <= 0.01).all()
    assert found.attrs["channels"] == [3, 7]


def test_ratios_are_those_of_the_definition() -> None:
    """In numpy, row by row, from the statistics."""
    data = planted(2.0, 1.3, seed=3)
    found = over_frames(data, [3, 7]).sel(set="massive")
    whole, ends = (data[name].to_numpy()[..., [3, 7]] for name in ("mean_abs", "edge_abs"))
    share = 2 / ROWS_OF_FRAME
    for third, steps in enumerate(([0, 1], [2, 3], [4, 5])):
        w, e = whole[:, steps].mean(1), ends[:, steps].mean(1)
        inside = (w - share * e) / (1 - share)
        first, edge, inner = w[:, :, 0], e[:, :, 1:].mean(2), inside[:, :, 1:].mean(2)
        mean = w.mean(2)
        np.testing.assert_allclose(found["size"][third], np.stack([(x / mean).mean((0, 2)) for x in (first, edge, inner)], 1))
        logs = [np.log(first / edge), np.log(edge / inner)]
        np.testing.assert_allclose(found["order"][:, third], np.exp([log.mean((0, 2)) for log in logs]))
        np.testing.assert_allclose(found["relative"][third], (w / mean[:, :, None]).mean((0, 3)))


def test_random_sets_are_as_many_and_no_pattern_is_beyond_them_more_often_than_by_chance() -> None:
    low = [(over_frames(null(seed), [3])["beyond"].isel(third=0, block=0) <= 0.05).to_numpy() for seed in range(40)]
    assert 0 <= np.mean(low) <= 0.12  # 80 draws at 5%: 0.12 is three standard errors above


def test_what_frames_need(video: interp.Run, tiny_run: interp.Run, ltx_model: interp.Model, tmp_path: Path) -> None:
    data = planted(2.0, 1.2)
    with refused(interp.InputError, "frames", "2 or more", 1):
        over_frames(data.isel(frame=[0]), [3])
    with refused(interp.InputError, "steps", "3 or more", 2):
        over_frames(data.isel(step=[0, 1]), [3])
    with refused(interp.InputError, "channels", "must be given"):
        over_frames(data)
    with refused(interp.InputError, "channels", 99):
        over_frames(data, [99])
    with refused(interp.InputError, "channels", "the control", 40):
        over_frames(data, list(range(40)))
    with refused(interp.InputError, "rows"):
        over_frames(data.drop_attrs(), [3])
    with refused(interp.StoreError, "--record stats,gates,frames"):
        over_frames(tiny_run, [3])
    with refused(interp.InputError, "stream", "text", "image"):
        over_frames(video, [3], stream="text")


def test_a_run_is_measured_as_its_stored_states(video: interp.Run) -> None:
    """Boundaries and insides from the tokens of the hidden states themselves."""
    found = interp.frames.over_frames(video, [3, 5]).sel(set="massive")
    states = abs(video.hidden["image"]["hidden"].sel(channel=[3, 5]).to_numpy().astype(np.float64))
    grid = states.reshape(*states.shape[:3], FRAMES, ROWS, COLUMNS, 2)
    first, ends = grid[..., 0, :, :, :].mean((-3, -2)), grid[..., 1:, [0, -1], :, :].mean((-4, -3, -2))
    inner = grid[..., 1:, 1:-1, :, :].mean((-4, -3, -2))
    logs = np.log(first / ends), np.log(ends / inner)  # three steps: one in each third
    expected = np.exp([log.reshape(3, 2, *log.shape[1:]).mean((0, 1, 4)) for log in logs])
    np.testing.assert_allclose(found["order"], expected, rtol=1e-5)


def test_the_command_and_its_figure(video: interp.Run) -> None:
    code, out, _ = command(["frames", str(video.path), "--channels", "3,5"])
    assert code == 0
    assert "first / boundary" in out
    figure = channels.frames(video.result("frames"))
    assert len(figure.data) == 6
    assert [one["text"] for one in figure.layout.annotations][:3] == ["early steps", "middle steps", "late steps"]


def test_a_store_with_frames_is_verified_and_resumed(video: interp.Run, wan_model: interp.Model, tmp_path: Path) -> None:
    """Bit for bit: the same rows in the same batches. A damaged shard of frames is found."""
    copy = tmp_path / "run.zarr"
    shutil.copytree(video.path, copy)
    assert command(["verify", str(copy)])[0] == 0
    (copy / "done" / "c" / "1").unlink()
    shutil.rmtree(copy / "summary")
    record = interp.Record(hidden=True, frames=True)
    again = interp.trace(wan_model, PROMPTS[:3], out=copy, steps=3, batch_size=2, repeats=2, record=record, **SHAPE)
    xr.testing.assert_identical(again.frames["image"].to_dataset().load(), video.frames["image"].to_dataset().load())
    assert "/frames/image" in again.data.groups
    assert "frames/image" in repr(again)
    (shard, *_) = [file for file in (copy / "frames" / "image" / "mean_abs" / "c").rglob("*") if file.is_file()]
    shard.write_bytes(shard.read_bytes()[:-40])
    code, out, err = command(["verify", str(copy)])
    assert code != 0
    assert "frames/image/mean_abs" in out + err
