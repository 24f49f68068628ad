"""Steering of a video's first frame and of the ends of frames, as an edit and as a guidance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PROMPTS
from messages import refused

import interp
from interp.base.sites import Site
from interp.guidance import ClassifierFree, SteeredFrames, parse
from interp.guidance import from_json as guidance_from_json
from interp.interventions import SteerFrames, from_json
from interp.interventions.edits import to_maximum

SHAPE: dict[str, Any] = {"steps": 2, "height": 64, "width": 48, "settings": {"num_frames": 5}}
SIZES = (3, 8, 6)
SITE = Site(1, "image", "hidden")


@pytest.fixture(scope="module")
def run(wan_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> interp.Run:
    out = tmp_path_factory.mktemp("steering") / "run.zarr"
    return interp.trace(wan_model, PROMPTS[:2], out=out, record=interp.Record(hidden=True), **SHAPE)


def steered(states: Any, channels: list[int], scale: float) -> Any:
    """In numpy, of (..., token, channel)."""
    grid = np.array(states).reshape(*states.shape[:-2], *SIZES, states.shape[-1])
    largest = abs(grid).max((-4, -3, -2), keepdims=True)
    wanted = np.sign(grid) * scale * largest
    for channel in channels:
        grid[..., 0, :, :, channel] = wanted[..., 0, :, :, channel]
        for row in (0, -1):
            grid[..., 1:, row, :, channel] = wanted[..., 1:, row, :, channel]
    return grid.reshape(states.shape)


@pytest.mark.parametrize("channels", [[3, 9], None])
def test_the_edit_is_its_definition(channels: list[int] | None) -> None:
    states = torch.randn(2, 144, 12, generator=torch.Generator().manual_seed(0))
    before = states.clone()
    found = SteerFrames(0.8, SIZES, channels=channels, blocks=1, stream="image").apply(SITE, 0, states)
    np.testing.assert_allclose(found, steered(states.numpy(), channels or list(range(12)), 0.8), rtol=1e-6)
    assert torch.equal(states, before)


def test_the_equation() -> None:
    found = to_maximum(torch.tensor([-2.0, 0.0, 3.0]), torch.tensor(5.0), 1.2)
    torch.testing.assert_close(found, torch.tensor([-6.0, 0.0, 6.0]))


def test_a_trace_holds_the_steered_states(run: interp.Run, wan_model: interp.Model, tmp_path: Path) -> None:
    """Block 1 of the first step, before anything else differs."""
    edit = SteerFrames(1.5, SIZES, channels=[3, 5], blocks=1)
    record = interp.Record(hidden=True)
    edited = interp.trace(wan_model, PROMPTS[:2], out=tmp_path / "e.zarr", record=record, interventions=[edit], **SHAPE)
    plain, other = (one.hidden["image"]["hidden"].sel(step=0, block=1).to_numpy() for one in (run, edited))
    np.testing.assert_allclose(other, steered(plain, [3, 5], 1.5), rtol=1e-6)
    assert (edited.images["latents"] != run.images["latents"]).any()


def test_the_guidance_is_the_edit_in_every_row(wan_model: interp.Model) -> None:
    """Alone, and in both rows of classifier-free guidance."""
    edit, method = SteerFrames(1.5, SIZES, channels=[3, 5], blocks=1), SteeredFrames([3, 5], 1, 1.5, sizes=SIZES)
    for base in (None, ClassifierFree(3)):
        guidance = method if base is None else base + method
        given = {} if base is None else {"guidance": base}
        with_edit = interp.generate(wan_model, PROMPTS[:2], interventions=[edit], **given, **SHAPE)
        guided = interp.generate(wan_model, PROMPTS[:2], guidance=guidance, **SHAPE)
        np.testing.assert_allclose(guided["latents"], with_edit["latents"], rtol=1e-5, atol=1e-6)
    late = SteeredFrames([3, 5], 1, 1.5, sizes=SIZES, steps=[1])
    assert (interp.generate(wan_model, PROMPTS[:2], guidance=late, **SHAPE)["latents"] != guided["latents"]).any()


def test_text_and_json(wan_model: interp.Model) -> None:
    found = parse("cfg:4+stas:1.2:channels=3,5:block=1:sizes=3x8x6", wan_model)
    assert found.methods[1] == SteeredFrames([3, 5], 1, 1.2, sizes=SIZES)
    assert "not from our papers" in found.methods[1].to_json()["source"]
    assert guidance_from_json(found.to_json()) == found
    edit = SteerFrames(1.2, "3x8x6", channels=[3], blocks=1, steps="0-1")
    assert from_json(edit.to_json()) == edit
    assert eval(repr(edit)) == edit


def test_settings_from_a_run(run: interp.Run, tiny_run: interp.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(interp.InputError, "auto", "pictures", tiny_run.path):
        SteeredFrames.auto(tiny_run)
    monkeypatch.setattr("interp.guidance.presets.chosen_by", lambda run: {"channels": [3], "block": 1, "source": "here"})
    found = SteeredFrames.auto(run, scale=0.9)
    assert (found.sizes, found.channels, found.block, found.scale) == (SIZES, (3,), 1, 0.9)
    assert "not from our papers" in found.source


def test_what_is_refused(wan_model: interp.Model) -> None:
    for sizes in ("3x8", "axbxc", (3, 0, 6), (), 3):
        with refused(interp.InputError, "sizes", "21x30x52"):
            SteeredFrames([3], 1, 1.0, sizes=sizes)
    with refused(interp.InputError, "sizes", "144", "[3, 8, 7]"):
        SteerFrames(1.0, (3, 8, 7), channels=[3], blocks=1, stream="image").apply(SITE, 0, torch.zeros(1, 144, 12))
    with refused(interp.InputError, "tokens", "SteerFrames"):
        SteerFrames(1.0, SIZES, channels=[3], blocks=1, tokens=[0])
    with refused(interp.InputError, "scale", "inf"):
        SteerFrames(float("inf"), SIZES, channels=[3], blocks=1)
    with refused(interp.InputError, "stas", "sizes"):
        parse("stas:1:channels=3:block=1", wan_model)
    with refused(interp.InputError, "channels", 99):
        interp.generate(wan_model, PROMPTS[:1], guidance=SteeredFrames([99], 1, 1.0, sizes=SIZES), **SHAPE)
