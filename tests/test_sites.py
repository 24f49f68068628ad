"""Every site a model has, read through `run_with_cache`, against plain hooks and against the residual identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import KINDS, PROMPTS, every_family, full, kinds, prompts_for
from messages import refused

import interp

FEW = ["dual_model", "flux_model", "sana_model"]


ALSO = full(*(f"{name}_model" for name in ("tiny", "schnell", "demo", "pixart", "sigma", "wan", "auraflow")))


@pytest.mark.parametrize("name", every_family(without=["hunyuandit_model", "stableaudio_model"]))
def test_the_sites_of_a_block_fit_together(name: str, request: pytest.FixtureRequest) -> None:
    """hidden = input + sum alpha x branch; mid lies between; each block's input is the last one's hidden."""
    model = request.getfixturevalue(name)
    _, cache = model.run_with_cache(prompts_for(name)[:2], "*", steps=2)
    names = {str(site) for site in model.anatomy.sites()}
    assert set(cache) == names
    checked = 0
    for index, block in enumerate(model.anatomy.blocks):
        for stream in block.hidden:
            state = cache["input", index, stream].astype(np.float64)
            if index and f"block.{index - 1}/{stream}/hidden" in cache:
                assert np.array_equal(cache["input", index, stream], cache["hidden", index - 1, stream])
            update = {}
            for tap in (tap for tap in block.branches if tap.stream == stream):
                alpha = cache[f"alpha.{tap.gate}", index, stream] if tap.gated else 1.0
                update[tap.gate] = cache[f"branch.{tap.gate}", index, stream].astype(np.float64) * alpha
            total = state + sum(update.values())
            scale = float(np.abs(cache["hidden", index, stream]).max())
            assert np.allclose(cache["hidden", index, stream], total, atol=1e-5 * scale)
            checked += bool(update)
            if f"block.{index}/{stream}/mid" in cache:
                before_mlp = state + sum(value for gate, value in update.items() if gate != "mlp")
                assert np.allclose(cache["mid", index, stream], before_mlp, atol=1e-5 * scale)
    assert checked >= len(model.anatomy.blocks)


@pytest.mark.parametrize("name", [*KINDS, *ALSO])
def test_the_input_of_a_branch_is_the_modulated_norm(name: str, request: pytest.FixtureRequest) -> None:
    """modulated = (1 + scale) LayerNorm(state) + shift, computed here in float64."""
    model = request.getfixturevalue(name)
    _, cache = model.run_with_cache(prompts_for(name)[:2], "*", steps=2)
    checked = 0
    for index, block in enumerate(model.anatomy.blocks):
        for tap in (tap for tap in block.taps if tap.kind == "modulated"):
            state = cache["mid" if tap.gate == "mlp" else "input", index, tap.stream].to_numpy().astype(np.float64)
            deviation = np.sqrt(state.var(-1, keepdims=True) + (1e-5 if name == "auraflow_model" else 1e-6))
            normal = (state - state.mean(-1, keepdims=True)) / deviation
            scale, shift = (
                cache[f"{kind}.{tap.gate}", index, tap.stream].to_numpy()[:, :, None] for kind in ("scale", "shift")
            )
            stored = cache[f"modulated.{tap.gate}", index, tap.stream]
            assert np.allclose(stored, (1 + scale) * normal + shift, atol=2e-4), (index, tap)
            checked += 1
    assert checked >= len(model.anatomy.blocks)


@pytest.mark.parametrize("name", kinds(*FEW))
def test_the_cache_holds_what_a_trace_stores(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = request.getfixturevalue(name)
    prompts = prompts_for(name)[:2]
    images, cache = model.run_with_cache(prompts, lambda site: site.endswith(("hidden", "alpha.attn")), steps=3, seed=4)
    run = interp.trace(
        model, prompts, out=tmp_path / "run.zarr", steps=3, seed=4, batch_size=2, record=interp.Record(hidden=True)
    )
    assert np.array_equal(images, run.images["image"])
    last = len(model.anatomy.blocks) - 1
    assert np.array_equal(cache["resid_post", -1], run.hidden["image"]["hidden"].sel(block=last))
    assert np.array_equal(cache["gate_msa", 0], run.gates["alpha"].sel(block=0, stream="image", gate="attn"))
    assert cache["hidden", 0].dims == ("prompt", "step", "token", "channel")
    assert list(cache["hidden", 0]["timestep"].values) == list(run.stats["timestep"].values)
    assert str(len(cache)) in repr(cache)


def test_the_default_filter_is_hidden_and_a_wrong_one_is_an_error(tiny_model: interp.Model) -> None:
    _, cache = tiny_model.run_with_cache("a red cat", steps=1)
    assert len(cache) == 7  # four blocks; the last one has no text stream
    assert all(name.endswith("/hidden") for name in cache)
    with refused(interp.InputError, "layers.5", "block.0/image/input"):
        tiny_model.run_with_cache("a red cat", "layers.5")
    with refused(interp.InputError, "cache", "block.0/image/alpha.mlp"):
        _ = cache["alpha.mlp", 0]


def branch_norm(site: interp.Site, step: int, value: torch.Tensor) -> torch.Tensor:
    return value.norm(dim=-1)


def test_a_custom_recorder_is_stored(tiny_model: interp.Model, tmp_path: Path) -> None:
    own = interp.SiteRecorder("branch_norm", "block.*/image/branch.*", branch_norm, axes={"token": 64})
    run = interp.trace(tiny_model, PROMPTS[:3], out=tmp_path / "run.zarr", record=interp.Record(recorders=(own,)), batch_size=3)
    _, cache = tiny_model.run_with_cache(PROMPTS[:3], "block.*/image/branch.*")
    value = run.recorded["branch_norm"]["value"]
    assert value.dims == ("prompt", "step", "site", "token")
    assert list(value["site"].values) == list(cache)
    assert len(cache) >= 8  # two branches in each of four blocks
    for name, states in cache.items():
        assert np.allclose(value.sel(site=name), np.linalg.norm(states, axis=-1), rtol=1e-5)
    assert run.plan["record"]["recorders"][0]["function"] == "test_sites.branch_norm"
    assert "/recorded/branch_norm" in run.data.groups


def test_a_recorder_may_give_another_dtype_at_every_step(tiny_model: interp.Model, tmp_path: Path) -> None:
    """Kept as float32, also where the first step gives whole numbers."""
    own = interp.SiteRecorder(
        "half",
        "*/image/hidden",
        lambda site, step, x: torch.full((len(x),), step) if step == 0 else x[:, 0, 0] * 0 + 0.5,
        axes={},
    )
    run = interp.trace(tiny_model, PROMPTS[:1], out=tmp_path / "r.zarr", steps=2, record=interp.Record(recorders=(own,)))
    assert (run.recorded["half"]["value"].to_numpy()[0, 0] == 0).all()
    assert (run.recorded["half"]["value"].to_numpy()[0, 1] == 0.5).all()


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (interp.SiteRecorder("x", "block.*/sound", branch_norm, axes={}), ("block.*/sound",)),
        (interp.SiteRecorder("x", "*/hidden", branch_norm, axes={"token": 3}), ("token", "(1, 3)")),
        (interp.SiteRecorder("x", "*/hidden", lambda site, step, value: 3.0, axes={}), ("x", "float")),
    ],
)
def test_a_wrong_recorder_is_an_error(
    own: interp.SiteRecorder, words: tuple[str, ...], tiny_model: interp.Model, tmp_path: Path
) -> None:
    with refused(interp.InputError, *words):
        interp.trace(tiny_model, PROMPTS[:1], out=tmp_path / "run.zarr", steps=1, record=interp.Record(recorders=(own,)))


def test_what_can_only_be_read_cannot_be_edited(tiny_model: interp.Model, tmp_path: Path) -> None:
    class EditBranch:
        def touches(self, site: interp.Site, step: int) -> bool:
            return site.kind == "branch"

        def apply(self, site: interp.Site, step: int, value: torch.Tensor) -> torch.Tensor:
            return value * 0

        def to_json(self) -> dict[str, Any]:
            return {"edit": "branch"}

    with refused(interp.InputError, "branch.attn"):
        interp.trace(tiny_model, PROMPTS[:1], out=tmp_path / "run.zarr", interventions=[EditBranch()])


def test_a_shared_gate_is_edited_through_its_owner(flux_model: interp.Model, tmp_path: Path) -> None:
    class Double:
        def __init__(self, stream: str) -> None:
            self.stream = stream

        def touches(self, site: interp.Site, step: int) -> bool:
            return (site.block, site.stream, site.kind) == (3, self.stream, "alpha")

        def apply(self, site: interp.Site, step: int, value: torch.Tensor) -> torch.Tensor:
            return value * 2

        def to_json(self) -> dict[str, Any]:
            return {"edit": "double", "stream": self.stream}

    with refused(interp.InputError, "block.3/text/alpha.attn", "block.3/image/alpha.attn"):
        interp.trace(flux_model, PROMPTS[:1], out=tmp_path / "text.zarr", steps=2, interventions=[Double("text")])
    plain = interp.trace(flux_model, PROMPTS[:1], out=tmp_path / "plain.zarr", steps=2)
    edited = interp.trace(flux_model, PROMPTS[:1], out=tmp_path / "edited.zarr", steps=2, interventions=[Double("image")])
    for stream in ("image", "text"):
        place = {"block": 3, "stream": stream, "gate": "attn"}
        assert np.array_equal(edited.gates["alpha"].sel(place), 2 * plain.gates["alpha"].sel(place))
