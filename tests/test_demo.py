"""The demo model: its world, its folder as a stock pipeline, its training that can be repeated and resumed."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from hypothesis import given
from hypothesis import strategies as st
from messages import names, refused
from PIL import Image

import interp
from interp.experiments.clean import clean_run
from interp.models import catalog
from interp.models.demo import denoisers, shapes, train, world
from interp.tracing.prepare import prepare

scenes = st.builds(
    world.Scene,
    **{name: st.sampled_from(values) for name, values in world.ATTRIBUTES.items()},
    grain=st.just(0.0),
    speckle=st.just(0.0),
    phase=st.floats(0, 1),
    softness=st.floats(0.8, 3.5),
)


@given(scenes)
def test_a_mask_is_where_the_subject_is(scene: world.Scene) -> None:
    """Without grain and speckle, every pixel well outside the mask has the background's colour, none well inside."""
    picture, cover = scene.picture() / 255.0, scene.coverage()
    background = np.array(world.BACKGROUNDS[scene.background])
    away = np.abs(picture - background).max(-1)
    assert (away[cover == 0] < 0.005).all()
    if scene.texture == "plain":  # the darker tone of blue is nearly navy
        assert (away[cover == 1] > 0.02).all()
    else:
        assert (away[cover == 1] > 0.2).any()
    assert np.array_equal(scene.mask(), cover > 0.5)
    assert 0.01 < scene.mask().mean() < 0.4


@given(scenes)
def test_the_subject_is_where_the_caption_says(scene: world.Scene) -> None:
    y, x = (axis.mean() / world.SIZE for axis in np.nonzero(scene.mask()))
    expected_y, expected_x = world.POSITIONS[scene.position]
    assert abs(x - expected_x) < 0.03
    assert abs(y - expected_y) < 0.09  # a triangle's mass lies below its centre
    caption = scene.caption()
    assert all(getattr(scene, name) in caption for name in world.ATTRIBUTES)


def test_colours_shapes_and_textures_differ_in_the_picture() -> None:
    plain = world.Scene("circle", "red", grain=0, speckle=0)
    seen = {plain.picture().tobytes()}
    for name, values in world.ATTRIBUTES.items():
        for value in values:
            if value != getattr(plain, name):
                changed = dataclasses.replace(plain, **{name: value}).picture().tobytes()
                assert changed not in seen, (name, value)
                seen.add(changed)


def test_uncaptioned_detail_changes_the_picture_and_not_the_caption() -> None:
    scene = world.Scene("star", "green", "striped")
    for change in ({"grain": 0.08}, {"speckle": 0.02}, {"phase": 0.5}, {"softness": 3.5}, {"noise_seed": 1}):
        other = dataclasses.replace(scene, **change)
        assert not np.array_equal(other.picture(), scene.picture()), change
        assert other.caption() == scene.caption()
    rough = dataclasses.replace(scene, grain=0.08, speckle=0.0).picture().astype(float)
    smooth = dataclasses.replace(scene, grain=0.0, speckle=0.0).picture().astype(float)
    outside = scene.coverage() == 0
    assert (rough - smooth)[outside].std() == pytest.approx(0.08 * 255, rel=0.5)  # clipped at black


def test_scenes_come_from_the_seed_alone() -> None:
    assert list(world.sample(5, seed=3)) == list(world.sample(5, seed=3))
    assert list(world.sample(5, seed=3)) != list(world.sample(5, seed=4))
    counts = {scene.shape for scene in world.sample(200)}
    assert counts == set(world.SHAPES)
    with refused(ValueError, "shape", "circle", "blob"):
        world.Scene("blob", "red")


def test_every_caption_fits_the_encoders_and_every_word_is_one_token() -> None:
    denoiser = shapes.SD3(denoisers.SIZES["small"])
    for scene in world.sample(300):
        for order in (0, 1):
            clip, t5 = denoiser.inputs([scene.caption(order=order)]).values()
            words = len(scene.caption().split())
            assert (clip != denoiser.tokenizer.eos_token_id).sum() == words + 1  # and the start token
            assert (t5 != 0).sum() == words + 1  # and the end token


def test_training_encodes_prompts_as_the_pipeline_does() -> None:
    denoiser = shapes.SD3(denoisers.SIZES["small"])
    pipe = denoiser.pipeline(denoisers.build_vae())
    caption = "a small red star in the top left"
    with torch.no_grad():
        states, pooled = denoiser.encode(**denoiser.inputs([caption]))
        expected = pipe.encode_prompt(
            caption, caption, caption, do_classifier_free_guidance=False, max_sequence_length=denoisers.TEXT_TOKENS
        )
    assert torch.allclose(states, expected[0], atol=1e-6)
    assert torch.allclose(pooled, expected[2], atol=1e-6)


@pytest.mark.parametrize("family", list(shapes.FAMILIES))
def test_every_family_is_trained_as_its_pipeline_runs(family: str, tmp_path: Path) -> None:
    """The prediction that is trained is what the saved pipeline's transformer is called for, on the same latents and prompt."""
    torch.manual_seed(0)
    denoiser = shapes.FAMILIES[family](denoisers.SIZES["small"])
    denoiser.eval()
    with torch.no_grad():
        for name, tensor in denoiser.state_dict().items():  # where training starts, parts are zero
            drawn = 0.1 * torch.randn_like(tensor) if name.startswith("transformer") and "pos_embed" not in name else tensor
            tensor.copy_(drawn.to(torch.bfloat16) if tensor.is_floating_point() else tensor)  # as the folder keeps them
    denoisers.save_folder(tmp_path / family, denoisers.build_vae(), denoiser)
    model = interp.load(tmp_path / family)
    prompt = "red circle" if family == "dit" else "a small red star in the top left"
    made = prepare(model, [prompt], steps=3)
    assert (made.plan.height, made.plan.width) == (world.SIZE, world.SIZE)
    calls = clean_run(made, made.plan.rows()[0]).calls
    given, expected = calls.arguments[1], calls.predictions[1]
    with torch.no_grad():
        inputs = denoiser.inputs([prompt])
        if family == "dit":
            found = denoiser.transformer(given["hidden_states"], timestep=given["timestep"], **inputs).sample
        else:
            sigma = float(made.schedule.sigmas[1])
            latents = given["hidden_states"]
            if family == "flux":
                latents = FluxPipeline._unpack_latents(latents, world.SIZE, world.SIZE, 4)
            found = denoiser.predict(latents, torch.tensor([sigma]), inputs)
    if family == "flux":
        found = FluxPipeline._pack_latents(found, *found.shape)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_flow_pair_is_the_straight_line() -> None:
    clean, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    t = torch.tensor([0.0, 0.25, 1.0])
    noisy, velocity = denoisers.flow_pair(clean, noise, t)
    assert torch.equal(noisy[0], clean[0])
    assert torch.equal(noisy[2], noise[2])
    later, _ = denoisers.flow_pair(clean, noise, t + 0.1)
    assert torch.allclose((later - noisy) / 0.1, velocity, atol=1e-4)


TOY = train.TrainingPlan(size="small", steps=6, batch_size=4, scenes=40, vae_steps=2, warm_up=2, keep=(3,))


@pytest.mark.processes
def test_a_killed_training_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: dict[str, list[tuple[int, float]]] = {"whole": [], "killed": []}

    def report(name: str) -> train.Report:
        return lambda part, step, steps, loss: losses[name].append((step, loss)) if part == "denoiser" else None

    train.train(tmp_path / "whole", TOY, report=report("whole"))
    saved = train._Training.save

    def save_then_die(self: train._Training, path: Path) -> None:
        saved(self, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "SAVE_EVERY", 4)
    with monkeypatch.context() as patch:
        patch.setattr(train._Training, "save", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            train.train(tmp_path / "killed", TOY, report=report("killed"))
    train.train(tmp_path / "killed", TOY, report=report("killed"))
    assert [step for step, _ in losses["killed"]] == [step for step, _ in losses["whole"]] == [1, 2, 3, 4, 5, 6]
    assert np.allclose([loss for _, loss in losses["killed"]], [loss for _, loss in losses["whole"]], rtol=1e-3)
    assert (tmp_path / "killed" / "checkpoints" / "step-000003" / "model_index.json").exists()
    assert not list((tmp_path / "killed").glob("*.part*"))
    with refused(interp.InputError, tmp_path / "killed"):
        train.train(tmp_path / "killed", dataclasses.replace(TOY, seed=1))


def test_a_training_state_reads_back_whole(tmp_path: Path) -> None:
    one, other = (train._Training(TOY, "cpu") for _ in range(2))
    scenes, latents = list(world.sample(40, seed=1)), torch.randn(40, 8, 16, 16).half()
    one.advance(scenes, latents)
    one.save(tmp_path / "state.pt")
    other.load(tmp_path / "state.pt")
    assert other.step == 1
    for name, tensor in one.denoiser.named_parameters():
        assert torch.equal(other.denoiser.get_parameter(name), tensor), name
        assert torch.equal(other.ema[name], one.ema[name]), name
    states = (training.optimizer.state_dict()["state"] for training in (one, other))
    for mine, theirs in zip(*(state.values() for state in states), strict=True):
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert one.advance(scenes, latents) == pytest.approx(other.advance(scenes, latents), rel=1e-4)


# The shipped folder


def test_the_shipped_files_are_small() -> None:
    folders = [entry.folder for entry in catalog.CATALOG.values() if entry.folder]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 15_000_000
    assert not [file for file in files if file.suffix in (".bin", ".pt", ".pkl", ".ckpt", ".py")]


@pytest.mark.parametrize("name", ["demo", "demo-early"])
def test_plain_diffusers_loads_it_and_draws_the_same(name: str) -> None:
    from diffusers import DiffusionPipeline

    model = interp.load(name)
    plain = DiffusionPipeline.from_pretrained(catalog.CATALOG[name].folder)
    pictures = [
        pipe(
            ["a red circle"],
            num_inference_steps=3,
            max_sequence_length=denoisers.TEXT_TOKENS,
            generator=[torch.Generator().manual_seed(0)],
        ).images[0]
        for pipe in (plain, model.pipe)
    ]
    assert type(plain).__name__ == "StableDiffusion3Pipeline"
    assert pictures[0].size == (world.SIZE, world.SIZE)
    assert np.array_equal(*map(np.asarray, pictures))


@pytest.mark.parametrize(("count", "steps", "least"), [(8, 8, (6, 4)), pytest.param(16, 20, (14, 11), marks=pytest.mark.full)])
def test_pictures_show_the_captioned_colours(count: int, steps: int, least: tuple[int, int], demo_model: interp.Model) -> None:
    """Guided at 4: the subject's and the background's mean colours are the captioned ones, nearest of all; not one by one."""
    asked = [s for s in world.sample(60, seed=77) if s.size == "large"][:count]
    pictures = demo_model.pipe(
        [scene.caption() for scene in asked],
        guidance_scale=4.0,
        num_inference_steps=steps,
        max_sequence_length=denoisers.TEXT_TOKENS,
        generator=[torch.Generator().manual_seed(index) for index in range(len(asked))],
        output_type="np",
    ).images
    backgrounds = colours = 0
    for scene, picture in zip(asked, pictures, strict=True):
        outside, inside = scene.coverage() == 0, scene.coverage() == 1
        backgrounds += nearest(np.median(picture[outside], axis=0), world.BACKGROUNDS) == scene.background
        brightest = np.sort(picture[inside], axis=0)[-len(picture[inside]) // 3 :]
        colours += nearest(np.median(brightest, axis=0), world.COLOURS) == scene.colour
    assert len(asked) == count
    assert backgrounds >= least[0]
    assert colours >= least[1]


def nearest(colour: np.ndarray, table: dict[str, tuple[float, float, float]]) -> str:
    return min(table, key=lambda name: float(np.abs(np.array(table[name]) - colour).sum()))


def test_unknown_words_warn_once_and_any_prompt_is_drawn(tmp_path: Path) -> None:
    model = interp.load("demo")
    prompt = ["A zebra, riding 3 red bicycles \N{RIGHT SINGLE QUOTATION MARK}uphill\N{HORIZONTAL ELLIPSIS} " * 6]
    with pytest.warns(interp.InterpWarning) as caught:
        run = interp.trace(model, prompt, out=tmp_path / "a.zarr", steps=1)
    assert run.rows_done == 1
    assert names(str(caught[0].message), 4, "bicycles, riding, uphill, zebra") == []
    assert names(str(caught[1].message), 1, "prompts", "tokenizer", 24) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error", interp.InterpWarning)
        interp.trace(model, ["a zebra uphill"], out=tmp_path / "b.zarr", steps=1)


def test_the_world_command_writes_the_truth(tmp_path: Path) -> None:
    from bad_inputs import run

    code, out, err = run(["demo", "world", "--out", str(tmp_path / "w"), "--count", "3", "--seed", "5"])
    assert (code, out) == (0, f"{tmp_path / 'w'}\n"), err
    lines = [json.loads(line) for line in (tmp_path / "w" / "scenes.jsonl").read_text().splitlines()]
    for index, scene in enumerate(world.sample(3, seed=5)):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "w" / f"{index:05d}.png")), scene.picture())
        assert np.array_equal(np.asarray(Image.open(tmp_path / "w" / f"{index:05d}-mask.png")) > 0, scene.mask())
        assert lines[index]["prompt"] == scene.caption()
    assert interp.read_prompts(tmp_path / "w" / "scenes.jsonl") == [line["prompt"] for line in lines]
