"""What single families have that others have not: videos, padded text, tables, tanh gates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PROMPTS
from torch import Tensor, nn

import interp
from interp.experiments import swap
from interp.experiments.disrupt import disrupt
from interp.guidance import DetailGuidance, equations
from interp.interventions import Scale, SwapConditioning, Zero, ZeroNormsKept, edited
from interp.models import noise, tiny
from interp.models.anatomy import Modulation
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
    generators = [torch.Generator().manual_seed(0) for _ in prompts]
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


def test_a_tokens_frame_is_the_one_it_is_said_to_be(wan_model: interp.Model) -> None:
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
    with pytest.raises(interp.InputError, match=r"num_frames must be a multiple of 2 and 1 more; got 4 \(try 5\)"):
        interp.trace(wan_model, PROMPTS[:1], out=tmp_path / "run.zarr", settings={"num_frames": 4})


def test_pipelines_of_two_transformers_are_refused() -> None:
    pipe, _ = tiny.make("wan")
    pipe.register_to_config(boundary_ratio=0.9)
    with pytest.raises(interp.ModelError, match="two transformers"):
        interp.wrap(pipe)
    pipe.register_to_config(boundary_ratio=None, expand_timesteps=True)
    with pytest.raises(interp.ModelError, match="a timestep of its own for every token"):
        interp.wrap(pipe)


def test_padding_changes_nothing_but_rounding(qwenimage_model: interp.Model) -> None:
    """Qwen-Image's prompts, given as text to the plain pipeline one at a time and without padding, draw the same."""
    found = interp.generate(qwenimage_model, PROMPTS[:3], steps=3, batch_size=3)["latents"].to_numpy()
    size = {"height": 64, "width": 64, "num_inference_steps": 3, "true_cfg_scale": 1.0}
    for row, prompt in enumerate(PROMPTS[:3]):
        generator = torch.Generator().manual_seed(0)
        own = qwenimage_model.pipe(prompt, generator=generator, output_type="latent", **size).images
        np.testing.assert_allclose(found[row], own[0].numpy(), rtol=1e-4, atol=1e-5)


def test_a_text_as_long_as_it_may_be_needs_no_mask(qwenimage_model: interp.Model) -> None:
    """The pipeline then leaves the mask out; an unconditional row, which has one, still joins."""
    long = " ".join(["a red cat and the blue dog"] * 4)
    with pytest.warns(interp.InterpWarning, match="is cut|are cut"):
        found = interp.generate(qwenimage_model, [long], steps=2, guidance="cfg:3")
    with pytest.warns(interp.InterpWarning, match="is cut|are cut"):
        plain = interp.generate(qwenimage_model, [long], steps=2)
    assert not np.array_equal(found["latents"], plain["latents"])


@pytest.mark.parametrize("name", ["sana_model", "pixart_model", "wan_model", "ltx_model", "cogvideox_model", "mochi_model"])
def test_an_edited_alpha_is_the_one_that_multiplies(name: str, request: pytest.FixtureRequest) -> None:
    """With a table: the block's update is the edited alpha times its branches, and untouched channels keep their bits."""
    model = request.getfixturevalue(name)
    edit = Scale(-0.9, channels=[1, 5], blocks=1, at="alpha.mlp")  # of a tanh too it stays in -1..1
    _, plain = model.run_with_cache(PROMPTS[0], "block.1/*", steps=2)
    _, cache = model.run_with_cache(PROMPTS[0], "block.1/*", steps=2, interventions=[edit])
    before, after = (kept["alpha.mlp", 1].to_numpy() for kept in (plain, cache))
    np.testing.assert_allclose(after[..., [1, 5]], -0.9 * before[..., [1, 5]], rtol=1e-5, atol=1e-7)
    others = [channel for channel in range(before.shape[-1]) if channel not in (1, 5)]
    np.testing.assert_array_equal(after[..., others], before[..., others])
    update = cache["hidden", 1].to_numpy().astype(np.float64) - cache["mid", 1].to_numpy()
    expected = after[:, :, None].astype(np.float64) * cache["branch.mlp", 1].to_numpy()
    np.testing.assert_allclose(update, expected, atol=1e-5 * np.abs(cache["hidden", 1].to_numpy()).max())


class TanhBlock(nn.Module):
    """A block whose gate is a tanh, as in Z-Image and Lumina 2."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 8)
        self.branch = nn.Linear(4, 4)

    def forward(self, state: Tensor, condition: Tensor) -> Tensor:
        scale, gate = self.project(condition).unsqueeze(1).chunk(2, dim=-1)
        return state + gate.tanh() * self.branch((1 + scale) * state)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0])
def test_a_tanh_gate_is_read_and_edited_as_what_multiplies(factor: float) -> None:
    torch.manual_seed(0)
    block, state, condition = TanhBlock(), torch.randn(2, 3, 4), torch.randn(2, 4)
    modulation = Modulation("image", "project", ("scale.mlp", "alpha.mlp"), lambda b, i: b.project(i["condition"]), tanh=True)

    def hook(module: Any, arguments: Any, output: Tensor) -> Tensor:
        chunks = modulation.split(output)
        chunks[1] = torch.cat([chunks[1][:1], chunks[1][1:] * factor])  # the second row alone
        return modulation.join(output, chunks)

    with torch.no_grad():
        plain = block(state, condition)
        scale, gate = block.project(condition).unsqueeze(1).chunk(2, dim=-1)
        handle = block.project.register_forward_hook(hook)
        found = block(state, condition)
        handle.remove()
        expected = state + factor * gate.tanh() * block.branch((1 + scale) * state)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-6)
    assert torch.equal(found[0], plain[0])


def test_a_tanh_gate_cannot_leave_its_range() -> None:
    modulation = Modulation("image", "project", ("alpha.mlp",), lambda b, i: i["x"], tanh=True)
    values = torch.tensor([[0.5, -0.5]])
    with pytest.raises(interp.InputError, match=r"alpha is a tanh; what an edit gives must lie in -1..1"):
        modulation.join(values, [modulation.split(values)[0] * 5])


def test_gates_that_differ_from_token_to_token_are_refused(wan_model: interp.Model) -> None:
    transformer = wan_model.pipe.transformer
    latents, text, edit = torch.randn(1, 4, 2, 8, 8), torch.randn(1, 3, 32), Zero(channels=2, blocks=1, at="alpha.mlp")
    with pytest.raises(interp.ModelError, match="differ from token to token"), edited(wan_model, [edit]):
        transformer(latents, torch.full((1, 32), 500.0), text)


def test_a_model_without_gates_says_so_and_traces_its_states(hunyuandit_model: interp.Model, tmp_path: Path) -> None:
    prompts, out = PROMPTS[:2], tmp_path / "run.zarr"
    with pytest.warns(interp.InterpWarning, match="has no gates: no alpha multiplies what its blocks add. What its states are"):
        run = interp.trace(hunyuandit_model, prompts, out=out, steps=2)
    assert run.stats["max_abs"].sizes["block"] == 4
    with pytest.raises(interp.StoreError, match="keeps no AdaLN gates; .* where the model has any"):
        run.gates  # noqa: B018
    for field in ("modulation", "branches"):
        with pytest.raises(interp.InputError, match=f"record.{field} goes with gates, and .* has none"):
            interp.trace(hunyuandit_model, prompts, out=tmp_path / "no.zarr", record=interp.Record(**{field: True}))
    with pytest.raises(interp.ModelError, match="has no gates"):
        interp.gates.tabulate(hunyuandit_model, prompts)
    with pytest.raises(interp.ModelError, match="has no gates: .* so none can be clamped"):
        interp.govern.clamp_alpha(hunyuandit_model, prompts, out=tmp_path / "govern", channels=[3])
    assert not (tmp_path / "no.zarr").exists()


def test_a_long_skip_is_what_the_identity_leaves_open(hunyuandit_model: interp.Model) -> None:
    """Blocks without one: hidden = input + branches. With one: the state that they add to is `skip_linear`'s."""
    transformer, seen = hunyuandit_model.pipe.transformer, []
    skipping = [index for index, block in enumerate(hunyuandit_model.anatomy.blocks) if block.remakes]
    assert skipping == [3]
    handle = transformer.blocks[3].skip_linear.register_forward_hook(lambda m, a, output: seen.append(output.double().numpy()))
    try:
        _, cache = hunyuandit_model.run_with_cache(PROMPTS[0], "*", steps=2)
    finally:
        handle.remove()
    added = sum(cache[f"branch.{gate}", 3].to_numpy().astype(np.float64) for gate in ("attn", "attn2", "mlp"))
    remade = np.stack(seen, axis=1)
    np.testing.assert_allclose(remade + added, cache["hidden", 3], atol=1e-5)
    assert np.abs(remade - cache["input", 3].to_numpy()).max() > 0.1


def test_each_block_has_its_own_part_of_what_one_network_gives(chroma_model: interp.Model, tmp_path: Path) -> None:
    """Chroma's gates over a grid of timesteps, without running a block, are those that a run uses."""
    run = interp.trace(chroma_model, PROMPTS[:1], out=tmp_path / "run.zarr", steps=3)
    timesteps = [float(value) for value in run.gates["timestep"]]
    found = interp.gates.tabulate(chroma_model, PROMPTS[:1], channels=list(range(32)), timesteps=timesteps)
    stored = run.gates["alpha"].isel(prompt=0).to_numpy()[::-1]  # the grid is in ascending order
    np.testing.assert_allclose(found["alpha"].transpose("timestep", "block", "stream", "gate", "channel"), stored, rtol=1e-5)
    assert "text cannot enter the gates of this model at all" in found.attrs["note"]


def test_other_text_keeps_the_image_part_of_a_mask(chroma_model: interp.Model) -> None:
    """The swap of text tokens draws the other prompt's picture from the same noise, its mask over text alone and all."""
    other_text = SwapConditioning.of(chroma_model, prompt=PROMPTS[1], tokens=True)
    found = interp.generate(chroma_model, PROMPTS[:1], steps=3, interventions=[other_text])["latents"].to_numpy()
    other = interp.generate(chroma_model, [PROMPTS[1]], steps=3)["latents"].to_numpy()
    np.testing.assert_allclose(found, other, atol=1e-6)


def test_v_is_what_its_schedulers_take_it_for() -> None:
    """The clean picture of a v prediction, as diffusers' DDIM finds it; the level is sqrt((1 - a) / a)."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False)
    scheduler.set_timesteps(5)
    x, v = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    for timestep in scheduler.timesteps:
        kept = scheduler.alphas_cumprod[timestep]
        own = scheduler.step(v, timestep, x).pred_original_sample
        found = noise.denoised(("v", "sigma"), x, torch.cat([v, v * 0], dim=1), float(((1 - kept) / kept) ** 0.5))
        torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-4)


def test_v_is_one_even_of_pure_noise() -> None:
    """CogVideoX's schedules begin there: sigma is infinite, the clean picture is -v, and CFG++ is the guided prediction."""
    x, v, other = (torch.randn(2, 4, 8, 8) for _ in range(3))
    torch.testing.assert_close(noise.denoised(("v",), x, v, math.inf), -v)
    torch.testing.assert_close(noise.noised(("v",), x, other, math.inf), other)
    torch.testing.assert_close(equations.plus_plus_noise(v, other, 0.6, math.inf, 2.0), other + 0.6 * (v - other))
    clean = noise.denoised(("v",), x, v, 1.3)
    implied = (v * (1 + 1.3**2) ** 0.5) + 1.3 * clean
    torch.testing.assert_close(noise.noised(("v",), clean, implied, 1.3), x, rtol=1e-4, atol=1e-5)


def test_a_schedule_may_begin_at_pure_noise(cogvideox_model: interp.Model) -> None:
    prepared = prepare(cogvideox_model, PROMPTS[:1], steps=3)
    assert np.isposinf(prepared.schedule.sigmas[0])
    assert np.isfinite(prepared.schedule.sigmas[1:]).all()
    found = interp.generate(cogvideox_model, PROMPTS[:1], steps=3, guidance="cfgpp:0.5")
    assert np.isfinite(found["latents"]).all()


def test_norms_that_cannot_be_held_are_refused_or_left_out(ltx_model: interp.Model, tmp_path: Path) -> None:
    edit = ZeroNormsKept(channels=[3], blocks=1)
    with pytest.raises(interp.ModelError, match="LTXVideoTransformer3DModel have none without weights of its own; leave out"):
        interp.generate(ltx_model, PROMPTS[:1], steps=2, interventions=[edit])
    experiment = disrupt(ltx_model, PROMPTS[:1], out=tmp_path / "d.zarr", channels=[3], blocks=[1], steps=2)
    assert not any(arm.name.startswith("norms") for arm in experiment.arms)
    assert "arms left out" in experiment.parameters["norms"]


def test_text_that_sets_the_gates_by_its_tokens_is_swapped_by_them(mochi_model: interp.Model) -> None:
    with pytest.raises(interp.InputError, match="pooled: the text that sets the gates of .* comes by its tokens; swap them"):
        SwapConditioning.of(mochi_model, prompt=PROMPTS[1], pooled=True)
    assert swap.factors_of(prepare(mochi_model, PROMPTS[:2], steps=3)) == ("timestep", "latents", "tokens")


def test_a_scheduler_that_runs_backwards_has_levels_that_fall(mochi_model: interp.Model) -> None:
    """Mochi's timesteps rise from 0, at noise, to 1000."""
    times = prepare(mochi_model, PROMPTS[:1], steps=4).schedule
    assert (np.diff(times.timesteps) > 0).all()
    assert (np.diff(times.sigmas) < 0).all()
    assert times.sigmas[0] == 1.0


@pytest.mark.parametrize(
    "name", ["mochi_model", "hunyuanvideo_model", "hunyuanimage_model", "ltx_model", "cogvideox_model", "hidream_model"]
)
def test_the_table_of_gates_is_what_a_run_uses(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model, prompts = request.getfixturevalue(name), PROMPTS[:2]
    guided = {"embedded_guidance": 2.0} if name == "hunyuanvideo_model" else {}
    run = interp.trace(model, prompts, out=tmp_path / "run.zarr", steps=3, settings=guided)
    timesteps = [float(value) for value in run.gates["timestep"]]
    every = list(range(model.anatomy.channels))
    guidance = [2.0, 5.0] if guided else None
    table = interp.gates.tabulate(model, prompts, every, timesteps=timesteps, guidance=guidance)["alpha"]
    table = table.sel(guidance=2.0) if guided else table
    table = table.sel(timestep=timesteps).transpose(..., "timestep", "block", "stream", "gate", "channel")
    for number in range(len(prompts)):
        here = table.isel(prompt=number) if "prompt" in table.dims else table
        np.testing.assert_allclose(here, run.gates["alpha"][number], rtol=1e-5, atol=1e-6)


def test_a_pipelines_guider_is_left_out_and_refused(hunyuanimage_model: interp.Model, tmp_path: Path) -> None:
    """HunyuanImage's published folder names guiders, which no argument turns off."""
    from diffusers.guiders import AdaptiveProjectedMixGuidance

    pipe, _ = tiny.make("hunyuanimage")
    pipe.register_modules(guider=AdaptiveProjectedMixGuidance())
    with pytest.raises(interp.ModelError, match="its guider guides, which no argument turns off; set pipe.guider"):
        interp.wrap(pipe)
    with pytest.raises(interp.InputError, match="HunyuanImagePipeline's guider projects and remembers"):
        pipe_of(hunyuanimage_model, AdaptiveProjectedMixGuidance())
    pipe.save_pretrained(tmp_path / "guiding")
    loaded = interp.load(tmp_path / "guiding")
    assert loaded.pipe.guider is None
    assert interp.generate(loaded, PROMPTS[:1], steps=2, height=64, width=64)["image"].shape == (1, 64, 64, 3)


def pipe_of(model: interp.Model, guider: Any) -> None:
    """Call the plain pipeline with a guider inside `interp.guided`."""
    model.pipe.register_modules(guider=guider)
    try:
        with interp.guided(model.pipe, DetailGuidance(channels=[3], block=1, scale=1.0)):
            model.pipe(PROMPTS[:1], num_inference_steps=2, height=64, width=64)
    finally:
        model.pipe.register_modules(guider=None)
