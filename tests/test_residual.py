"""Which branch writes a channel, and gates without running a block. That the parts sum to the state: `FamilyTests`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import prompts_for
from messages import refused

import interp
from interp.analysis.factorial import split_grid
from interp.experiments.grid import tabulate
from interp.models.families.schedules import schedule
from interp.testing import plant


def test_what_a_branch_writes_is_what_a_plain_hook_sees(tiny_model: interp.Model, tmp_path: Path) -> None:
    run = interp.trace(tiny_model, ["a red cat"], out=tmp_path / "run.zarr", record=interp.Record(branches=True))
    seen: list[torch.Tensor] = []
    mlp = tiny_model.pipe.transformer.transformer_blocks[2].ff
    handle = mlp.register_forward_hook(lambda m, a, output: seen.append(output.double().mean(dim=1)[0]))
    try:
        generator = [torch.Generator("cpu").manual_seed(int(run.stats["seed"][0]))]
        arguments = {"num_inference_steps": 4, "height": 64, "width": 64, "guidance_scale": 1.0, **tiny_model.settings()}
        tiny_model.pipe(["a red cat"], generator=generator, **arguments)
    finally:
        handle.remove()
    stored = run.branches["branch"].sel(block=2, stream="image", gate="mlp").squeeze("prompt")
    np.testing.assert_allclose(stored, torch.stack(seen), atol=1e-6)


def test_the_position_is_part_of_the_embedding(tiny_model: interp.Model, tmp_path: Path) -> None:
    run = interp.trace(
        tiny_model, ["a red cat"], out=tmp_path / "run.zarr", height=32, width=48, record=interp.Record(branches=True)
    )
    embed = tiny_model.pipe.transformer.pos_embed
    table = embed.pos_embed.reshape(embed.pos_embed_max_size, embed.pos_embed_max_size, -1)
    top, left = (embed.pos_embed_max_size - 4) // 2, (embed.pos_embed_max_size - 6) // 2  # a 4 x 6 grid, centred
    expected = table[top : top + 4, left : left + 6].mean(dim=(0, 1))
    np.testing.assert_allclose(run.branches["position"].sel(stream="image")[0], expected, atol=1e-6)
    writers = interp.residual.decompose(run, [3])["writer"].to_numpy().tolist()
    assert writers[:3] == ["patch", "position", "block.0/attn"]
    assert "embedding" in interp.residual.decompose(run, [3], stream="text")["writer"].to_numpy()


def test_the_planted_writer_is_found(tmp_path: Path) -> None:
    planted = plant("flux", channels=(4, 9), block=2, gate="attn", seed=5)
    run = interp.trace(planted.model, planted.prompts(4), out=tmp_path / "run.zarr", record=interp.Record(branches=True))
    for stream in planted.streams:
        found = interp.residual.decompose(run, stream=stream)
        assert found["channel"].to_numpy().tolist() == [4, 9]
        assert found["largest_writer"].to_numpy().tolist() == ["block.2/attn"] * 2
        assert found["half_written"].to_numpy().tolist() == [2, 2]
        one = found.sel(writer="block.2/attn")
        np.testing.assert_allclose(one["contribution"], one["alpha"] * one["branch"], rtol=1e-4)  # the branch is constant


# gates


def test_a_grid_splits_as_its_closed_form_says() -> None:
    """f = t + 2 g + t g on a centred grid: the terms are orthogonal, their variances known."""
    t, g = np.linspace(-1, 1, 5), np.linspace(-2, 2, 4)
    table = (t[:, None] + 2 * g[None] + t[:, None] * g[None])[..., None]
    np.testing.assert_allclose(split_grid(table, 2)[:, 0], [t.var(), 4 * g.var(), t.var() * g.var()])
    three = np.random.default_rng(0).normal(size=(3, 4, 5, 2))
    np.testing.assert_allclose(split_grid(three, 3).sum(axis=0), three.var(axis=(0, 1, 2)))


@pytest.mark.parametrize("name", ["dual_model", "flux_model"])
def test_the_table_equals_the_traced_gates(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model, prompts = request.getfixturevalue(name), prompts_for(name)[:3]
    run = interp.trace(model, prompts, out=tmp_path / "run.zarr", batch_size=3, steps=3)
    times = run.gates["timestep"].to_numpy()
    every = list(range(model.anatomy.channels))
    table = tabulate(model, prompts, every, timesteps=[float(value) for value in times])
    traced = run.gates["alpha"].transpose("prompt", "step", "block", "stream", "gate", "channel").to_numpy()
    np.testing.assert_allclose(table["alpha"], traced[:, np.argsort(times)], atol=1e-5)
    streamed = tabulate(model, prompts, timesteps=[float(value) for value in times])
    for variable in ("share", "shapley", "mean", "deviation"):
        np.testing.assert_allclose(streamed[variable], table[variable], atol=1e-6)
    present = table["mean"].notnull()
    np.testing.assert_allclose(table["share"].sum("term").where(present).to_numpy()[present.to_numpy()], 1.0, atol=1e-6)


def test_a_planted_gate_is_split_exactly() -> None:
    planted = plant("dit", timestep_share=0.3, seed=2)
    spec, model = planted.model.loaded.spec, planted.model
    layout = spec.layout(model.pipe, *model.sizes(), {})
    times = schedule(model.pipe, spec.levels, model.defaults.steps, layout.tokens(layout.generated), {}).timesteps
    table = tabulate(model, planted.population, list(planted.channels), timesteps=[float(t) for t in times])
    here = table.sel(block=planted.block, stream="image", gate=planted.gate).squeeze("channel")
    np.testing.assert_allclose(here["share"].sel(term="timestep"), 0.3, atol=1e-4)
    np.testing.assert_allclose(here["share"].sel(term="text"), 0.7, atol=1e-4)
    np.testing.assert_allclose(here["share"].sel(term="text:timestep"), 0.0, atol=1e-6)
    assert here["share_low"].sel(term="timestep") < 0.3 < here["share_high"].sel(term="timestep")


def test_embedded_guidance_is_a_third_player(flux_model: interp.Model, schnell_model: interp.Model) -> None:
    table = tabulate(flux_model, ["a cat", "a dog"], [3], timesteps=4, guidance=[1.0, 4.0])
    assert table["player"].to_numpy().tolist() == ["text", "timestep", "guidance"]
    assert table["alpha"].sizes["guidance"] == 2
    whole = tabulate(flux_model, ["a cat", "a dog"], timesteps=4, guidance=[1.0, 4.0])
    np.testing.assert_allclose(whole["share"].sel(channel=[3]), table["share"], atol=1e-6)
    with refused(interp.InputError, "guidance", "schnell"):
        tabulate(schnell_model, ["a cat"], guidance=[1.0])
    for wrong in (1, [500.0], [0.0, 2000.0]):
        with refused(interp.InputError, "timesteps"):
            tabulate(schnell_model, ["a cat"], timesteps=wrong)
