"""Picture experiments on models with planted truths: what carries the prompt is found, and no control claims it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import KINDS, prompts_for
from messages import refused

import interp
from interp.analysis import disruption as analysis
from interp.analysis import patching
from interp.analysis.intervals import Sampled
from interp.experiments.clean import clean_run, sample
from interp.experiments.kinds.disrupt import disrupt
from interp.experiments.kinds.patch import patch
from interp.experiments.ranking import Ranked
from interp.interventions.conditioning import ReplaceLater
from interp.interventions.forks import Forks
from interp.store.experiment import Experiment
from interp.testing import Planted, plant
from interp.tracing.prepare import prepare

BLOCK, CHANNEL = 1, 5


@pytest.fixture(
    scope="module",
    params=["sd3", pytest.param("flux", marks=pytest.mark.full), pytest.param("dit", marks=pytest.mark.full)],
)
def carrier(request: pytest.FixtureRequest) -> Planted:
    """The prompt reaches the picture by channel 5's gate in block 1 alone."""
    return plant(request.param, channels=(CHANNEL,), block=BLOCK, carrier=True, spread=0.5, timestep_share=0.3, strength=20.0)


def grid(drawn: Experiment, what: str) -> Any:
    return patching.recovered(drawn, "latents")["recovered"].sel(what=what).isel(column=0).to_numpy()


def test_the_prompt_enters_by_the_planted_gate_alone(carrier: Planted) -> None:
    zero = interp.interventions.Zero(channels=[CHANNEL], blocks=BLOCK)
    texts = carrier.prompts(2)
    plain = interp.generate(carrier.model, texts, steps=3, seeds="shared")["latents"].to_numpy()
    without = interp.generate(carrier.model, texts, steps=3, seeds="shared", interventions=[zero])["latents"].to_numpy()
    assert np.abs(plain[0] - plain[1]).max() > 1e-3
    np.testing.assert_allclose(without[0], without[1], rtol=1e-5, atol=1e-6)


def test_patching_finds_the_planted_channel_and_block(carrier: Planted, tmp_path: Path) -> None:
    """All steps patched: from the planted block on the channel brings everything back, before it nothing; ordinary channels
    never; its gate at the planted block alone.
    """
    texts = carrier.prompts(4)
    prepared = patch(
        carrier.model, texts[:2], texts[2:], out=tmp_path / "patch.zarr", windows=1, channels=[CHANNEL], stream="both", steps=3
    )
    drawn = prepared.run()
    blocks = len(carrier.model.anatomy.blocks)
    expected = np.array([float(block >= BLOCK) for block in range(blocks)])
    massive = grid(drawn, "massive")
    assert massive[BLOCK] == pytest.approx(1.0, abs=1e-4)  # exactly there: nothing else has heard of the prompt yet
    np.testing.assert_allclose(massive, expected, atol=0.1)
    assert np.abs(grid(drawn, "control")).max() < 0.2  # ordinary channels: next to nothing
    at_planted = np.array([float(block == BLOCK) for block in range(blocks)])
    np.testing.assert_allclose(grid(drawn, "alpha"), at_planted, atol=2e-3)


def test_disruption_finds_the_planted_channel_and_block(carrier: Planted, tmp_path: Path) -> None:
    """Zeroing the channel removes the prompt, from the planted block on; nothing else does, LayerNorm controls included."""
    prepared = disrupt(
        carrier.model,
        carrier.prompts(4),
        out=tmp_path / "disrupt.zarr",
        channels=[CHANNEL],
        blocks=[0, BLOCK, "all"],
        stream="both" if len(carrier.streams) > 1 else "image",
        steps=3,
        seeds="shared",
        repeats=4,
    )
    found = prepared.run().result("disruption").sel(measure="prompt_effect")
    value = {str(arm): float(found["value"].sel(arm=arm)) for arm in found["arm"].to_numpy()}
    assert value[f"zero {BLOCK}"] == pytest.approx(-1.0, abs=1e-5)
    assert value["zero all"] == pytest.approx(-1.0, abs=1e-5)
    assert abs(value["zero 0"]) < 0.2  # the channel is not massive there yet
    controls = {arm: effect for arm, effect in value.items() if not arm.startswith("zero")}
    assert controls
    assert min(controls.values()) > -0.9, controls
    assert str(found["verdict"].sel(arm=f"zero {BLOCK}").values) == "cannot tell", "four prompts give no interval"


# later blocks are told of the text by cross-attention, or (Qwen-Image) how long it is
CROSS = ("sana_model", "pixart_model", "sigma_model", "wan_model", "qwenimage_model")
CONDITIONED = dict.fromkeys((*CROSS, "flux2_model", "auraflow_model"), "timestep")  # what the gates are told


@pytest.mark.parametrize("name", KINDS)
def test_state_and_conditioning_together_are_the_clean_run(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Both streams' whole state at a block and all conditioning that enters after it reproduce the clean run. Neither alone:
    not the state (later blocks and the output layer are told of the corrupted prompt), not the conditioning.
    """
    model, prompts = request.getfixturevalue(name), prompts_for(name)
    last = len(model.anatomy.blocks) - 1
    given: dict[str, Any] = {"what": ["everything", "hidden"], "windows": 1, "stream": "both", "steps": 3}
    drawn = patch(model, prompts[:1], prompts[1:2], out=tmp_path / "patch.zarr", blocks=[1, last], **given).run()
    clean = clean_run(
        prepare(model, prompts[:1], steps=3), prepare(model, prompts[:1], steps=3).plan.rows()[0], keep_conditioning=True
    )
    np.testing.assert_allclose(drawn.latents(0, 1), clean.latents, rtol=1e-5, atol=1e-5)
    names = [str(arm) for arm in drawn.axes["arm"].to_numpy()]
    for block in (1, last):
        everything = drawn.latents(0, names.index(f"everything {block} 0-2"))
        np.testing.assert_allclose(everything, clean.latents, rtol=1e-4, atol=2e-5 * max(1.0, np.abs(clean.latents).max() / 10))
        state = drawn.latents(0, names.index(f"hidden {block} 0-2"))
        told = "text" in CONDITIONED.get(name, "text") or (name in CROSS and block != last)
        assert (np.abs(state - clean.latents).max() > 1e-5 * max(10.0, np.abs(clean.latents).max())) == told, block
    recovered = patching.recovered(drawn, "latents")["recovered"].sel(what="everything").to_numpy()
    np.testing.assert_allclose(recovered, 1.0, atol=1e-3)
    corrupted = prepare(model, prompts[1:2], steps=3)
    row = corrupted.plan.rows()[0]
    alone = Forks(model.anatomy, [[ReplaceLater(1, clean.conditioning, "clean")]], clean_run(corrupted, row).calls)
    with alone.drawing(model.pipe.transformer):
        _, latents = sample(corrupted, [row])
    assert np.abs(latents[0] - clean.latents).max() > 2e-5


def test_everything_in_one_step_is_not_everything(tiny_model: interp.Model, tmp_path: Path) -> None:
    prepared = patch(
        tiny_model, ["a red cat"], ["two dog"], out=tmp_path / "p.zarr", what=["everything"], blocks=[1], stream="both", steps=3
    )
    recovered = patching.recovered(prepared.run(), "latents")["recovered"].to_numpy().ravel()
    assert (recovered < 0.9).all()
    assert recovered.sum() > 0.2


@pytest.mark.parametrize("seeds", ["own", "shared"])
def test_both_prompts_of_a_pair_have_one_noise(seeds: str, tiny_model: interp.Model, tmp_path: Path) -> None:
    """The clean prompt's own; two pairs have two."""
    clean = ["a red cat", "two dog"]
    given: dict[str, Any] = {"what": ["hidden"], "blocks": [1], "steps": 1, "repeats": 2, "seeds": seeds}
    prepared = patch(tiny_model, clean, ["the green circle", "a photo"], out=tmp_path / "p.zarr", **given)
    rows = prepare(tiny_model, clean, steps=1, repeats=2, seeds=seeds).plan.rows()
    assert [row.seed for row in prepared.prepared.plan.rows()] == [row.seed for row in rows]
    assert len({row.seed for row in rows}) == (4 if seeds == "own" else 2)


def test_regions_cover_the_picture(tiny_model: interp.Model, tmp_path: Path) -> None:
    prepared = patch(
        tiny_model, ["a red cat"], ["two dog"], out=tmp_path / "p.zarr", what=["hidden"], blocks=[1], regions=2, steps=2
    )
    tokens = [token for arm in prepared.arms for token in arm.said.get("tokens") or ()]
    assert sorted(tokens) == list(range(prepared.prepared.layout.tokens("image")))
    found = prepared.run().result("patching_picture")
    assert found["column"].to_numpy().tolist() == ["y0 x0", "y0 x1", "y1 x0", "y1 x1"]
    assert prepared.cost.forwards == 2 * 2 + (1 + 3 * 2 / 4) + 4  # two clean runs; the step of the fork; the step after it


def test_verdicts_by_two_one_sided_tests() -> None:
    draw = np.random.default_rng(0)
    rows = Sampled.single(50)
    assert analysis.verdict(draw.normal(0.0, 0.01, 50), rows, 0.1) == "minimal"
    assert analysis.verdict(draw.normal(0.5, 0.01, 50), rows, 0.1) == "changed"
    assert analysis.verdict(draw.normal(-0.5, 0.01, 50), rows, 0.1) == "changed"
    assert analysis.verdict(draw.normal(0.1, 0.2, 50), rows, 0.1) == "cannot tell"
    assert analysis.verdict(np.array([0.0]), Sampled.single(1), 0.1) == "cannot tell"
    assert analysis.verdict(draw.normal(0.5, 0.01, 3), Sampled.single(3), 0.1) == "cannot tell"
    assert analysis.verdict(np.zeros(0), Sampled.single(0), 0.1) == "cannot tell"
    shared = Sampled([f"text {n % 25}" for n in range(50)], [n // 25 for n in range(50)])
    assert analysis.verdict(draw.normal(0.5, 0.01, 50), shared, 0.1) == "cannot tell", "two seeds that all texts share"


def test_random_controls_are_ordinary_channels() -> None:
    """Never a massive one, over many seeds; as many as asked for, each once."""
    ranked = Ranked(massive=(1, 4, 6), order=(4, 1, 6, 0, 2, 3, 5, 7), source="a test")
    drawn = [ranked.random(seed) for seed in range(50)]
    assert all(len(set(one)) == 3 and not set(one) & {1, 4, 6} for one in drawn)
    assert len(set(drawn)) > 5
    assert ranked.lowest == (3, 5, 7)
    with refused(interp.InputError, "channels", 6, 5):
        ranked.random(0, count=6)
