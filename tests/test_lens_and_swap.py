"""The block lens against the model's own estimates; swaps against planted truths and closed forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import every_family, prompts_for
from messages import refused

import interp
from interp.analysis import factorial
from interp.base.sites import Site
from interp.experiments.clean import clean_run
from interp.experiments.head import only_the_head, predict
from interp.experiments.kinds.lens import lens
from interp.experiments.kinds.swap import swap
from interp.testing import plant
from interp.tracing.prepare import prepare


@pytest.mark.parametrize("name", every_family())
def test_the_head_alone_gives_the_models_own_prediction(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    prepared = prepare(model, prompts_for(name)[:1], steps=3)
    last = Site(len(model.anatomy.blocks) - 1, model.anatomy.generated.name, "hidden")
    clean = clean_run(prepared, prepared.plan.rows()[0], [(step, last) for step in range(3)])
    modules = [model.pipe.transformer.get_submodule(block.path) for block in model.anatomy.blocks]
    before = [module.__dict__.get("forward") for module in modules]
    for step in range(3):
        state = clean.states[step, last]
        found = predict(prepared, clean.calls.arguments[step], torch.stack([state, state.roll(1, dims=-1)]))
        own = clean.calls.predictions[step][:, prepared.layout.span(len(prepared.layout.prediction))]
        torch.testing.assert_close(found[:1], own, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(found[1:], own, atol=1e-4)
        assert [module.__dict__.get("forward") for module in modules] == before


def test_no_block_runs_inside_the_head(tiny_model: interp.Model) -> None:
    prepared = prepare(tiny_model, ["a red cat"], steps=1)
    clean = clean_run(prepared, prepared.plan.rows()[0])
    ran: list[Any] = []
    attention = tiny_model.pipe.transformer.transformer_blocks[0].attn
    handle = attention.register_forward_hook(lambda *given: ran.append(1))
    before = tiny_model.pipe.transformer.transformer_blocks[0].__dict__.get("forward")
    state = torch.zeros(1, prepared.layout.tokens("image"), tiny_model.anatomy.channels)
    predict(prepared, clean.calls.arguments[0], state)
    handle.remove()
    assert not ran
    with pytest.raises(ZeroDivisionError), only_the_head(tiny_model.pipe.transformer, tiny_model.anatomy, state, {}):
        _ = 1 / 0
    assert tiny_model.pipe.transformer.transformer_blocks[0].__dict__.get("forward") is before


@pytest.mark.parametrize("name", ["tiny_model", pytest.param("flux_model", marks=pytest.mark.full)])
def test_lens_live_and_stored_agree_and_end_on_the_picture(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = request.getfixturevalue(name)
    prompts = prompts_for(name)[:2]
    last = len(model.anatomy.blocks) - 1
    live = lens(model, prompts, out=tmp_path / "live.zarr", without=[3], steps=3).run()
    run = interp.trace(model, prompts, out=tmp_path / "run.zarr", record=interp.Record(hidden=True), steps=3)
    stored = lens(model, out=tmp_path / "stored.zarr", stored=run, without=[3]).run()
    assert live.done.all()
    assert stored.done.all()
    kinds, blocks, steps = (live.axes[axis].to_numpy() for axis in ("kind", "block", "step"))
    for prompt in range(2):
        for arm in range(live.done.shape[1]):
            np.testing.assert_allclose(
                live.latents(prompt, arm), stored.latents(prompt, arm), rtol=1e-4, atol=1e-4, err_msg=str(live.axes["arm"][arm])
            )
        final = live.picture(prompt, 0).astype(int)
        ending = np.flatnonzero((kinds == "whole") & (blocks == last) & (steps == 2))[0]
        assert np.abs(live.picture(prompt, ending).astype(int) - final).max() <= 1  # x0 of the last step is where it ends
    found = live.result("lens")
    assert float(found["value"].sel(measure="structure", kind="whole", step=2, block=last)) < 1e-3
    assert found.sizes == {"measure": 3, "kind": 2, "step": 3, "block": last + 1}


def test_lens_refuses_what_it_cannot_replay(tiny_model: interp.Model, tmp_path: Path) -> None:
    part = interp.trace(
        tiny_model, ["a red cat"], out=tmp_path / "p.zarr", record=interp.Record(hidden=interp.Select(blocks=[0])), steps=2
    )
    with refused(interp.InputError, "block 3"):
        lens(tiny_model, out=tmp_path / "l.zarr", stored=part, without=None).run()
    with refused(interp.InputError, "prompts", "stored"):
        lens(tiny_model, ["a red cat"], out=tmp_path / "l.zarr", stored=part)


def test_contrasts_are_those_of_a_table_by_hand() -> None:
    table = np.array([[1.0, 2.0], [5.0, 10.0]])[None, :, :, None, None]  # (prompt, A, B, block, channel)
    assert factorial.contrast(table, (0,), 2).squeeze() == 7.5 - 1.5
    assert factorial.contrast(table, (1,), 2).squeeze() == 6.0 - 3.0
    assert factorial.contrast(table, (0, 1), 2).squeeze() == (10 - 5) - (2 - 1)
    parts = [(factorial.contrast(table, term, 2).squeeze() / 2 ** len(term)) ** 2 for term in ((0,), (1,), (0, 1))]
    assert sum(parts) == pytest.approx(table.var())  # the terms' variances are all of it


@pytest.mark.long
@pytest.mark.parametrize(
    "family", ["sd3", pytest.param("flux", marks=pytest.mark.full), pytest.param("dit", marks=pytest.mark.full)]
)
def test_swaps_find_what_sets_a_planted_channel(family: str, tmp_path: Path) -> None:
    """Where it is written, timestep and pooled text (or class) set the planted channel through its gate alone: by as much
    as alpha changes; latents and text tokens do not.
    """
    planted = plant(family, channels=(5,), block=1, timestep_share=0.5, spread=0.3, strength=100.0)
    model, texts = planted.model, planted.prompts(3)
    found = swap(model, texts, out=tmp_path / "swap.zarr", channels=[5], steps=6, pair=(1, 4)).run().result("swap")
    run = interp.trace(model, texts, out=tmp_path / "run.zarr", steps=6)
    alpha = run.gates["alpha"].sel(block=1, stream="image", gate=planted.gate, channel=5).to_numpy()
    here = found.sel(block=1, set="massive")
    expected = np.log2(np.abs(alpha[:, 4] / alpha[:, 1])).mean()
    # timestep's effect averages over own and other text: about the prompts' mean, for additive alpha nearly the same
    assert float(here["effect"].sel(factor="timestep")) == pytest.approx(expected, abs=0.1)
    silent = [factor for factor in ("latents", "tokens") if factor in found["factor"].to_numpy()]
    for factor in silent:
        assert np.abs(here["effect"].sel(factor=factor).to_numpy()).max() < 0.05, factor
    terms = [str(term) for term in found["term"].to_numpy()]
    told = [term for term in terms if not set(term.split(":")) & {"latents", "tokens"}]
    assert float(here["share"].sel(term=told).sum()) > 0.95
    np.testing.assert_allclose(found["share"].sum("term"), 1.0, rtol=1e-5)
    np.testing.assert_allclose(here["own_level"], 1.0, atol=0.05)
