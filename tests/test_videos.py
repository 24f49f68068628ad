"""Videos: tokens, pictures and regions frame by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PROMPTS
from messages import refused

import interp
from interp.analysis import segmentation
from interp.experiments.kinds.disrupt import half_of
from interp.experiments.kinds.patch import patch
from interp.experiments.kinds.transport import transport
from interp.tracing.prepare import prepare


def test_a_video_is_stored_frame_by_frame(wan_model: interp.Model, tmp_path: Path) -> None:
    prompts, pipe = PROMPTS[:2], wan_model.pipe
    run = interp.trace(
        wan_model,
        prompts,
        out=tmp_path / "run.zarr",
        steps=2,
        height=32,
        width=48,
        batch_size=2,
        settings={"num_frames": 5},
        record=interp.Record(hidden=interp.Select(blocks="0", steps=(1,))),
    )
    generators = [torch.Generator().manual_seed(int(seed)) for seed in run.images["seed"]]
    own = pipe(
        prompts,
        guidance_scale=1.0,
        num_frames=5,
        height=32,
        width=48,
        num_inference_steps=2,
        generator=generators,
        max_sequence_length=wan_model.settings()["max_sequence_length"],
    ).frames
    expected = (own * 255).round().astype(np.uint8)
    assert run.images["video"].dims == ("prompt", "frame", "y", "x", "rgb")
    np.testing.assert_array_equal(run.images["video"], expected)
    np.testing.assert_array_equal(run.images["image"], expected[:, 2])
    assert run.images["latents"].dims == ("prompt", "latent_channel", "latent_frame", "latent_y", "latent_x")
    states = run.hidden["image"]["hidden"]
    frames, rows, columns = 3, 4, 6  # two pictures a latent frame, four pixels a latent, two latents a token
    assert states.sizes["token"] == frames * rows * columns
    places = np.stack([states[f"token_{axis}"].to_numpy() for axis in ("frame", "y", "x")])
    grid = np.stack(np.meshgrid(np.arange(frames), np.arange(rows), np.arange(columns), indexing="ij")).reshape(3, -1)
    np.testing.assert_array_equal(places, grid)


def test_a_tokens_frame_is_the_one_its_coordinate_names(wan_model: interp.Model) -> None:
    """Latents changed in one frame alone change the embedded tokens of that frame alone."""
    prepared = prepare(wan_model, PROMPTS[:1], steps=1, settings={"num_frames": 5})
    transformer, tokens = wan_model.pipe.transformer, prepared.layout.tokens("image") // 3
    latents = torch.zeros(1, 4, 3, 16, 16)
    other = latents.clone()
    other[:, :, 1] += 1.0
    with torch.no_grad():
        embedded = [transformer.patch_embedding(x).flatten(2).transpose(1, 2) for x in (latents, other)]
    moved = (embedded[0] != embedded[1]).any(-1)[0]
    assert moved[tokens : 2 * tokens].all()
    assert not moved[:tokens].any()
    assert not moved[2 * tokens :].any()


def test_frames_that_the_autoencoder_cannot_make_are_refused(wan_model: interp.Model, tmp_path: Path) -> None:
    with refused(interp.InputError, "num_frames", 4, 5):
        interp.trace(wan_model, PROMPTS[:1], out=tmp_path / "run.zarr", settings={"num_frames": 4})


@pytest.mark.parametrize("name", ["wan_model", "ltx_model", "mochi_model"])
def test_a_region_of_a_video_is_in_every_frame(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = request.getfixturevalue(name)
    prepared = prepare(model, PROMPTS[:1], steps=2)
    layout, (rows, columns) = prepared.layout, prepared.layout.grid
    assert layout.token_frames > 1
    grid = np.zeros((layout.token_frames, rows, columns), bool)
    grid.reshape(-1)[list(half_of(prepared))] = True
    assert grid[:, :, : columns // 2].all()
    assert not grid[:, :, columns // 2 :].any()
    experiment = patch(model, PROMPTS[:1], PROMPTS[1:2], out=tmp_path / "p.zarr", regions=2, blocks=[1], steps=2, channels=[3])
    cells = experiment.arms[2:]
    parts = [arm.said["tokens"] for arm in cells if arm.labels["what"] == cells[0].labels["what"]]
    assert sorted(token for part in parts for token in part) == list(range(layout.tokens("image")))


@pytest.mark.parametrize("name", ["ltx_model", "cogvideox_model", "wan_model"])
def test_pictures_as_sources_are_videos_of_one_frame(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = request.getfixturevalue(name)
    pictures = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    given: dict[str, Any] = {"pictures": pictures, "channels": [3], "steps": 2, "strengths": [1.0]}
    drawn = transport(model, PROMPTS[:1], PROMPTS[1:2], out=tmp_path / "t.zarr", **given).run()
    assert drawn.done.all()
    with refused(interp.InputError, "pictures", "num_frames", 9, 1):
        transport(model, PROMPTS[:1], PROMPTS[1:2], out=tmp_path / "u.zarr", settings={"num_frames": 9}, **given)


def test_a_map_of_several_frames_is_refused(ltx_model: interp.Model, tmp_path: Path) -> None:
    run = interp.trace(ltx_model, PROMPTS[:1], out=tmp_path / "r.zarr", steps=2, record=interp.Record(hidden=True))
    with refused(interp.InputError, "frame", "one_frame"):
        segmentation.grid_of(run.hidden["image"]["hidden"])
