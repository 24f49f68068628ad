"""What a second reading of the later families found: frames, sabotaged conditioning, kinds that are not there, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_inputs import run as command
from conftest import GATELESS, KINDS, LATER, PROMPTS

import interp
from interp.analysis import segmentation
from interp.experiments.disrupt import half_of
from interp.experiments.features import extractor
from interp.experiments.lens import lens
from interp.experiments.patch import patch
from interp.experiments.swap import swap
from interp.experiments.transport import transport
from interp.interventions import SwapConditioning
from interp.models import support, tiny
from interp.models.families.pipeline import spectrogram, spectrogram_size
from interp.testing import check_anatomy
from interp.tracing.prepare import prepare

pytestmark = pytest.mark.filterwarnings("ignore::interp.errors.InterpWarning")


@pytest.mark.parametrize("name", ["wan_model", "ltx_model", "mochi_model"])
def test_a_region_of_a_video_is_in_every_frame(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = request.getfixturevalue(name)
    prepared = prepare(model, PROMPTS[:1], steps=2)
    layout, (rows, columns) = prepared.layout, prepared.layout.image_grid
    assert layout.token_frames > 1
    grid = np.zeros((layout.token_frames, rows, columns), bool)
    grid.reshape(-1)[list(half_of(prepared))] = True
    assert grid[:, :, : columns // 2].all()
    assert not grid[:, :, columns // 2 :].any()
    experiment = patch(model, PROMPTS[:1], PROMPTS[1:2], out=tmp_path / "p.zarr", regions=2, blocks=[1], steps=2, channels=[3])
    parts = [cell.tokens for cell in experiment.cells if cell.what == experiment.cells[0].what]
    assert sorted(token for part in parts for token in part) == list(range(layout.tokens("image")))


@pytest.mark.parametrize("name", [name for name in (*KINDS, *LATER) if name not in GATELESS])
def test_a_wrong_conditioning_is_found_out(name: str, request: pytest.FixtureRequest) -> None:
    """The players' way to the gates is proved too, where projections are inside blocks as well."""
    model = request.getfixturevalue(name)
    conditioning = model.anatomy.conditioning
    assert conditioning is not None

    def twisted(value: Any) -> Any:
        return value * 0.5 + 0.1 if value.is_floating_point() else (value + 1) % 1000  # a class's number

    def wrong(transformer: Any, inputs: Any) -> dict[str, Any]:
        return {key: twisted(value) for key, value in conditioning.inputs(transformer, inputs).items()}

    sabotaged = dataclasses.replace(model.anatomy, conditioning=dataclasses.replace(conditioning, inputs=wrong))
    checks = {c.name: c for c in check_anatomy(interp.Model(dataclasses.replace(model.loaded, anatomy=sabotaged)))}
    assert not checks["gates from conditioning alone"].passed
    assert checks["residual identity"].passed


def test_gates_of_one_network_are_each_blocks_own() -> None:
    (row,) = (row for row in support.support() if row["models"] == "chroma")
    assert "(of all blocks at once, each its own)" in row["gates"]


def test_one_step_that_a_scheduler_cannot_make_is_refused(ltx_model: interp.Model) -> None:
    with pytest.raises(interp.InputError, match="has no timesteps for 1 steps; give another --steps"):
        interp.generate(ltx_model, PROMPTS[:1], steps=1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mochi_model", "has no LayerNorm without weights"),
        ("hunyuandit_model", "has no LayerNorm"),
        ("ltx_model", "has no LayerNorm"),
    ],
)
def test_descriptors_say_what_they_need(name: str, said: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(interp.ModelError, match=said):
        extractor(request.getfixturevalue(name), PROMPTS[:1], channels=[3], steps=2)


@pytest.mark.parametrize("name", ["ltx_model", "cogvideox_model", "wan_model"])
def test_pictures_as_sources_are_videos_of_one_frame(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = request.getfixturevalue(name)
    pictures = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    given: dict[str, Any] = {"pictures": pictures, "channels": [3], "steps": 2, "strengths": [1.0]}
    drawn = transport(model, PROMPTS[:1], PROMPTS[1:2], out=tmp_path / "t.zarr", **given).run()
    assert drawn.done.all()
    with pytest.raises(interp.InputError, match="pictures: they have one frame; num_frames must be 1, got 9"):
        transport(model, PROMPTS[:1], PROMPTS[1:2], out=tmp_path / "u.zarr", settings={"num_frames": 9}, **given)


def test_a_map_of_several_frames_is_refused(ltx_model: interp.Model, tmp_path: Path) -> None:
    run = interp.trace(ltx_model, PROMPTS[:1], out=tmp_path / "r.zarr", steps=2, record=interp.Record(hidden=True))
    with pytest.raises(interp.InputError, match=r"are of a video's frames; maps are of one picture: trace with --num-frames 1"):
        segmentation.grid_of(run.hidden["image"]["hidden"])


def test_blocks_of_a_nested_path_are_one_row() -> None:
    code, out, err = command(["inspect", "--model", "hidream", "--local-files-only"])
    assert code == 0, err
    assert "double_stream_blocks.*.block" in out
    assert "0-15" in out


def test_a_shift_that_is_not_there_is_nan_and_not_present(mochi_model: interp.Model, tmp_path: Path) -> None:
    """Mochi has scales and no shifts."""
    run = interp.trace(mochi_model, PROMPTS[:1], out=tmp_path / "r.zarr", steps=2, record=interp.Record(modulation=True))
    assert np.isnan(run.gates["shift"]).all()
    assert np.isfinite(run.gates["scale"].sel(stream="image")).all()


def test_one_of_two_timesteps_is_not_swapped(tmp_path: Path) -> None:
    """Distilled HunyuanImage is told the next step's too (MeanFlow)."""
    model = interp.load(tiny.build("hunyuanimage", tmp_path / "distilled", distilled=True))
    with pytest.raises(interp.InputError, match="is told two of them, this step's and the next's"):
        SwapConditioning.of(model, timestep=300.0)
    with pytest.raises(interp.ModelError, match="is told two timesteps"):
        swap(model, PROMPTS[:2], out=tmp_path / "s.zarr", channels=[3], steps=2)
    assert all(check.passed for check in check_anatomy(model))


def test_a_sound_is_seen_as_its_spectrogram(stableaudio_model: interp.Model, tmp_path: Path) -> None:
    """A tone is a line at its frequency; louder is brighter; high ones are at the top. Latents are no pictures."""
    time = np.arange(4096)
    low, high = (0.5 * np.sin(2 * np.pi * row / 128 * time)[None] for row in (8, 48))  # periods of 16 and of 2.7 samples
    for tone, row in ((low, 8), (high, 48)):
        picture = spectrogram(tone)
        assert picture.shape == (*spectrogram_size(4096), 3)
        assert int(picture[:, 100, 0].argmax()) == 64 - row
    assert spectrogram(low).max() > spectrogram(low / 10).max()
    assert spectrogram(np.zeros((2, 4096))).max() == 0
    run = interp.trace(stableaudio_model, PROMPTS[:2], out=tmp_path / "r.zarr", steps=2)
    assert run.images["image"].shape == (2, *stableaudio_model.sizes(), 3)
    assert run.images["latents"].dims == ("prompt", "latent_channel", "latent_token")
    with pytest.raises(interp.ModelError, match="draws sound: its latents are no pictures"):
        lens(stableaudio_model, PROMPTS[:1], out=tmp_path / "l.zarr", steps=2, without=[3])
