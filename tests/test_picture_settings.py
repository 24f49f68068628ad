"""A picture as a setting: what a plan holds of it, which runs resume with it, and the steps that image-to-image takes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_edit_pipelines import picture

import interp
from interp.base.errors import InputError, PlanError
from interp.base.options import as_settings
from interp.models.families.schedules import after_strength
from interp.tracing.prepare import prepare

MODEL = "sd3-img2img_model"


@pytest.fixture
def model(request: pytest.FixtureRequest) -> interp.Model:
    found: interp.Model = request.getfixturevalue(MODEL)
    return found


def plan_of(model: interp.Model, path: Path, **more: Any) -> dict[str, Any]:
    settings: dict[str, Any] = prepare(model, ["a cat"], settings={"image": str(path)}, steps=3, **more).plan.to_json()[
        "settings"
    ]
    return settings


def test_a_plan_holds_the_pictures_content(model: interp.Model, tmp_path: Path) -> None:
    one, other = picture(tmp_path / "one.png"), picture(tmp_path / "other.png", seed=1)
    copied = Path(shutil.copy(one, tmp_path / "copied.png"))
    assert plan_of(model, one)["image"]["path"] == str(one)
    digests = [plan_of(model, path)["image"]["sha256"] for path in (one, copied, other)]
    assert digests[0] == digests[1] != digests[2]


def test_a_moved_picture_resumes_and_a_changed_one_does_not(model: interp.Model, tmp_path: Path) -> None:
    path, out = picture(tmp_path / "one.png"), tmp_path / "run.zarr"
    given: dict[str, Any] = {"steps": 3, "out": out, "settings": {"image": str(path)}}
    first = interp.trace(model, ["a cat"], **given)
    assert first.images.sizes["prompt"] == 1
    moved = path.rename(tmp_path / "two.png")
    again = interp.trace(model, ["a cat"], **{**given, "settings": {"image": str(moved)}})
    np.testing.assert_array_equal(first.images["image"], again.images["image"])
    picture(moved, seed=1)
    with pytest.raises(PlanError, match=r"settings\.image\.sha256"):
        interp.trace(model, ["a cat"], **{**given, "settings": {"image": str(moved)}})


def test_a_picture_that_changes_before_its_run_is_refused(model: interp.Model, tmp_path: Path) -> None:
    from interp.experiments.clean import sample

    prepared = prepare(model, ["a cat"], settings={"image": str(picture(tmp_path / "one.png"))}, steps=3)
    picture(tmp_path / "one.png", seed=1)
    with pytest.raises(InputError, match=r"image: .* has changed"):
        sample(prepared, prepared.plan.rows())


def test_another_picture_draws_another(model: interp.Model, tmp_path: Path) -> None:
    drawn = [
        interp.generate(model, ["a cat"], steps=3, settings={"image": str(picture(tmp_path / f"{seed}.png", seed))})
        for seed in (0, 1)
    ]
    assert not np.allclose(drawn[0]["latents"], drawn[1]["latents"], atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 10, 28])
@pytest.mark.parametrize("strength", [0.01, 0.3, 0.5, 0.6, 0.64, 0.99, 1.0, 1])
def test_the_steps_are_those_of_the_pipeline(model: interp.Model, steps: int, strength: float) -> None:
    pipe = model.pipe
    prepared = prepare(model, ["a cat"], steps=steps, settings={"strength": strength})
    pipe.scheduler.set_timesteps(steps)
    timesteps, count = pipe.get_timesteps(steps, strength, "cpu")
    assert count == len(timesteps) == steps - after_strength(steps, {"strength": strength})
    np.testing.assert_array_equal(prepared.schedule.timesteps, timesteps.numpy())
    np.testing.assert_array_equal(prepared.schedule.sigmas, pipe.scheduler.sigmas[-count - 1 : -1].double().numpy())


def test_no_step_is_left(model: interp.Model) -> None:
    with pytest.raises(InputError, match=r"strength must leave at least one of 4 steps; got 0 \(try 0.25\)"):
        prepare(model, ["a cat"], steps=4, settings={"strength": 0})
    with pytest.raises(InputError, match=r"strength must be a number in 0\.\.1; got 1\.5"):
        prepare(model, ["a cat"], settings={"strength": 1.5})


def test_no_picture_is_given(model: interp.Model) -> None:
    with pytest.raises(InputError, match="image is not given; add --settings image=PATH"):
        prepare(model, ["a cat"], settings={"image": ""})
    assert model.settings({"image": ""})["image"] == ""  # what reads no picture needs none


@pytest.mark.parametrize("wrong", [7, None, ["a.png"], True])
def test_a_picture_is_a_path(model: interp.Model, wrong: Any) -> None:
    with pytest.raises(InputError, match="image must be the path of a picture, such as --settings image=cat.png"):
        prepare(model, ["a cat"], settings={"image": wrong})


def test_settings_as_text() -> None:
    assert as_settings("image=a folder/cat.png, strength=0.6") == {"image": "a folder/cat.png", "strength": 0.6}
    for wrong in ("image=", "=cat.png", "image", "image=a,b.png"):
        with pytest.raises(InputError, match="settings must be NAME=VALUE between commas"):
            as_settings(wrong)


def test_swap_begins_with_noise(model: interp.Model, tmp_path: Path) -> None:
    given: dict[str, Any] = {"channels": [3], "steps": 3}
    with pytest.raises(InputError, match=r"strength=0\.64 .* begins with a picture; give strength=1"):
        interp.swap(model, ["a cat", "two dog"], out=tmp_path / "swap.zarr", **given)
    design = interp.swap(model, ["a cat", "two dog"], out=tmp_path / "swap.zarr", settings={"strength": 1}, **given)
    assert np.isfinite(design.run().result("swap")["share"]).any()
