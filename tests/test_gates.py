"""How gates of different kinds are read and edited: tables, tanh, one network for all blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PROMPTS
from messages import names, refused
from torch import Tensor, nn

import interp
from interp.experiments.grid import tabulate
from interp.interventions import Scale, Zero, edited
from interp.models.anatomy import Modulation
from interp.models.skeleton import gates as said_of_gates
from interp.models.skeleton import skeleton


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
    with refused(interp.InputError, "alpha", "tanh", "-1..1"):
        modulation.join(values, [modulation.split(values)[0] * 5])


def test_gates_that_differ_from_token_to_token_are_refused(wan_model: interp.Model) -> None:
    transformer = wan_model.pipe.transformer
    latents, text, edit = torch.randn(1, 4, 2, 8, 8), torch.randn(1, 3, 32), Zero(channels=2, blocks=1, at="alpha.mlp")
    alike = torch.full((1, 32), 500.0)
    with edited(wan_model, [edit]):
        transformer(latents, alike, text)
    with refused(interp.ModelError, "gates", "token", "edited"), edited(wan_model, [edit]):
        transformer(latents, torch.where(torch.arange(32) < 16, alike, 300.0), text)


def test_each_block_has_its_own_part_of_what_one_network_gives(chroma_model: interp.Model, tmp_path: Path) -> None:
    """Chroma's gates over a grid of timesteps, without running a block, are those that a run uses."""
    run = interp.trace(chroma_model, PROMPTS[:1], out=tmp_path / "run.zarr", steps=3)
    timesteps = [float(value) for value in run.gates["timestep"]]
    found = tabulate(chroma_model, PROMPTS[:1], channels=list(range(32)), timesteps=timesteps)
    stored = run.gates["alpha"].isel(prompt=0).to_numpy()[::-1]  # the grid is in ascending order
    np.testing.assert_allclose(found["alpha"].transpose("timestep", "block", "stream", "gate", "channel"), stored, rtol=1e-5)
    assert "text cannot enter the gates of this model at all" in found.attrs["note"]


def test_gates_of_one_network_are_each_blocks_own() -> None:
    described = said_of_gates(skeleton("chroma", local_files_only=True).anatomy)
    assert described.startswith("attn, mlp (of all blocks")


def test_a_shift_that_is_not_there_is_nan_and_not_present(mochi_model: interp.Model, tmp_path: Path) -> None:
    """Mochi has scales and no shifts."""
    run = interp.trace(mochi_model, PROMPTS[:1], out=tmp_path / "r.zarr", steps=2, record=interp.Record(modulation=True))
    assert np.isnan(run.gates["shift"]).all()
    assert np.isfinite(run.gates["scale"].sel(stream="image")).all()


def test_an_embedded_guidance_is_a_player_of_the_table(hunyuanvideo_model: interp.Model, tmp_path: Path) -> None:
    """The slice of the table at the run's guidance is what the run uses."""
    model, prompts = hunyuanvideo_model, PROMPTS[:1]
    run = interp.trace(model, prompts, out=tmp_path / "run.zarr", steps=2, settings={"embedded_guidance": 2.0})
    timesteps, every = [float(value) for value in run.gates["timestep"]], list(range(model.anatomy.channels))
    table = tabulate(model, prompts, every, timesteps=timesteps, guidance=[2.0, 5.0])["alpha"]
    found = table.sel(guidance=2.0, timestep=timesteps)
    found = found.isel(prompt=0, missing_dims="ignore").transpose("timestep", "block", "stream", "gate", "channel")
    np.testing.assert_allclose(found, run.gates["alpha"][0], rtol=1e-5, atol=1e-6)
    assert np.abs(table.sel(guidance=5.0).to_numpy() - table.sel(guidance=2.0).to_numpy())[..., 0, 0, :].max() > 1e-3


def test_what_does_not_vary_has_no_share(tiny_model: interp.Model, tmp_path: Path) -> None:
    """With one prompt, text would have a share of 0 and the timestep one of 1 in every model."""
    made = interp.gates(tiny_model, ["a red cat"], out=tmp_path / "g.zarr", channels=[5], timesteps=3)
    found = made.run().result("gates")
    assert np.isnan(found["share"]).all()
    assert np.isnan(found["shapley"]).all()
    assert np.isfinite(found["alpha"]).any()
    assert not names(str(found.attrs["note"]), "no shares", "two or more")
