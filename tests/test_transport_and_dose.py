"""Transport and dose-response: planted truths, ends that must meet, designs that must balance."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import prompts_for
from messages import refused

import interp
from interp.analysis import disruption as analysis
from interp.analysis import patching
from interp.analysis.intervals import Sampled
from interp.base.plan import Row
from interp.experiments.kinds.dose import dose, nested_blocks, share_out
from interp.experiments.kinds.transport import transport
from interp.store.schema import Array
from interp.testing import plant
from interp.tracing.prepare import prepare


@pytest.mark.parametrize("name", ["tiny_model", pytest.param("flux_model", marks=pytest.mark.full)])
def test_transport_of_everything_is_a_patch_of_the_whole_state(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = request.getfixturevalue(name)
    prompts = prompts_for(name)
    drawn = transport(
        model, prompts[:1], prompts[1:2], out=tmp_path / "t.zarr", channels=[3], strengths=[0.5, 1.0], steps=3
    ).run()
    found = drawn.result("transport")
    seed = int(drawn.axes["seed"][0])
    assert seed == prepare(model, prompts[:1], steps=3).plan.rows()[0].seed, "the source's own: one noise for a pair"
    alone = [interp.generate(model, prompts[n : n + 1], steps=3, seeds=[seed])["latents"].to_numpy()[0] for n in (1, 0)]
    for arm, expected in enumerate(alone):  # the target, the source
        np.testing.assert_allclose(drawn.latents(0, arm), expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(alone[0], alone[1], rtol=1e-3, atol=1e-4)
    latents = found.sel(metric="latents")
    far = {name: float(latents["moved"].sel(channels=name, strength=1.0)) for name in ("all", "massive", "control")}
    assert far["all"] > 5 * max(abs(far["massive"]), abs(far["control"]))
    assert float(latents["moved"].sel(channels="all", strength=0.5)) < far["all"]


def test_a_pair_whose_pictures_are_the_same_is_left_out_and_counted(
    tiny_model: interp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = prompts_for("tiny_model")[:4]
    given: dict[str, Any] = {"out": tmp_path / "t.zarr", "channels": [3], "strengths": [1.0], "steps": 2}
    drawn = transport(tiny_model, prompts[:2], prompts[2:], **given).run()
    both, read = patching.moved(drawn), patching.read
    assert both.attrs["left_out"].startswith("0 of 2 rows")

    def same(experiment: Any, row: int, arm: int, metric: str) -> Any:
        return read(experiment, row, 0 if row and arm == 1 else arm, metric)  # the second pair's source is its target

    monkeypatch.setattr(patching, "read", same)
    left = patching.moved(drawn)
    assert left.attrs["left_out"].startswith("1 of 2 rows")
    assert np.isfinite(left["moved"]).all()


@pytest.mark.parametrize(
    "family", ["sd3", pytest.param("flux", marks=pytest.mark.full), pytest.param("dit", marks=pytest.mark.full)]
)
def test_the_planted_channels_move_the_picture_to_the_source(family: str, tmp_path: Path) -> None:
    """The prompt reaches the picture by four channels alone, whose values differ from token to token: transporting them from
    their own block on is all of the way, and no control is near it. Other plants: tests/campaigns/kinds.py.
    """
    chosen = [5, 9, 12, 20]
    planted = plant(
        family, channels=chosen, block=1, carrier=True, pattern=1.0, spread=0.5, timestep_share=0.0, strength=20.0, heads=4
    )
    texts, given = planted.prompts(8), {"channels": chosen, "blocks": [1], "strengths": [0.5, 1.0], "steps": 3}
    found = transport(planted.model, texts[:4], texts[4:], out=tmp_path / "t.zarr", **given).run().result("transport")
    for metric in ("picture", "latents"):
        here = found.sel(metric=metric)
        assert float(here["moved"].sel(channels="massive", strength=1.0)) == pytest.approx(1.0, abs=0.02)
        assert 0.2 < float(here["moved"].sel(channels="massive", strength=0.5)) < 0.9
        assert float(here["moved"].sel(channels="third", strength=1.0)) == pytest.approx(0.0, abs=0.02), "by the measure"
        assert abs(float(here["moved"].sel(channels="control", strength=1.0))) < 0.2
        assert (here["over"].sel(strength=1.0) > 0.2).all()


@pytest.mark.long
def test_a_picture_as_source(demo_model: interp.Model, tmp_path: Path) -> None:
    """A source picture that the model drew itself, at full strength over all channels, is where the target goes."""
    source, target = (
        ["a large red circle in the center on a black background"],
        ["a large blue square in the center on a white background"],
    )
    picture = interp.generate(demo_model, source, steps=4)["image"].to_numpy()
    prepared = transport(
        demo_model,
        source,
        target,
        out=tmp_path / "t.zarr",
        pictures=picture,
        channels=[29],
        strengths=[1.0],
        mask="subject",
        steps=4,
    )
    drawn = prepared.run()
    assert np.abs(drawn.picture(0, 1).astype(int) - picture[0]).max() <= 1
    found = drawn.result("transport").sel(metric="structure", strength=1.0)
    assert float(found["moved"].sel(channels="all")) > 0.2
    everywhere = transport(
        demo_model, source, target, out=tmp_path / "e.zarr", pictures=picture, channels=[29], strengths=[1.0], steps=4
    ).run()
    whole = everywhere.result("transport").sel(metric="structure", strength=1.0)
    assert float(whole["moved"].sel(channels="all")) > 0.8


def test_blocks_of_a_dose_are_nested() -> None:
    assert nested_blocks(8) == [(2,), (2, 3), (2, 3, 4, 5), tuple(range(8))]
    assert nested_blocks(57, 22)[1] == tuple(range(22, 36))
    for sets in (nested_blocks(8), nested_blocks(4, 3), nested_blocks(24, 6), nested_blocks(1)):
        assert all(set(small) <= set(large) for small, large in itertools.pairwise(sets))
    with refused(interp.InputError, "block", "0..7", 9):
        nested_blocks(8, 9)


@pytest.mark.parametrize(
    ("texts", "seeds", "doses", "budget"), [(16, 2, 72, 2000), (5, 2, 10, 100), (4, 1, 3, 1000), (12, 3, 72, 2000)]
)
def test_a_fractional_design_is_balanced(texts: int, seeds: int, doses: int, budget: int) -> None:
    rows = [Row(number, f"prompt {number // seeds}", number % seeds) for number in range(texts * seeds)]
    planned = share_out(rows, doses, budget, 0)
    assert planned.sum() <= budget
    assert planned[:, 0].all()
    by_kind = planned[:, 1:].reshape(len(rows), 3, doses)
    assert (by_kind == by_kind[:, :1]).all()  # massive channels and their controls in the same rows
    each = by_kind[:, 0].sum(axis=0)
    assert each.min() == each.max() >= min(len(rows), 2)
    by_row = by_kind[:, 0].sum(axis=1)
    assert by_row.max() - by_row.min() <= 4
    for number in range(doses):
        drawn = [rows[row].text for row in np.flatnonzero(by_kind[:, 0, number])]
        assert len(set(drawn)) == min(len(drawn), texts)  # different prompts before further seeds
    if each[0] < len(rows):  # which rows go together is a matter of lot: no two factors share a pattern
        assert len({tuple(by_kind[:, 0, number]) for number in range(doses)}) > doses // 2
    with refused(interp.InputError, "budget", 50, 100):
        share_out(rows, 100, 50, 0)


def test_outcomes_by_the_papers_claims() -> None:
    draw = np.random.default_rng(0)
    kept, moved, fallen = (draw.normal(mean, 0.01, 30) for mean in (0.03, 0.3, 0.9))
    none, worse = draw.normal(0, 0.01, 30), draw.normal(1.0, 0.1, 30)

    def outcome(structure: Array, detail: Array, sharpness: Array) -> str:
        values = {"structure": structure, "detail": detail, "sharpness": sharpness}
        return analysis.outcome({name: (here, Sampled.single(len(here))) for name, here in values.items()}, 0.1)

    assert outcome(kept, worse, none) == "detail lost alone (DG)"
    assert outcome(kept, none, -worse) == "detail lost alone (DG)"
    assert outcome(kept, -worse, worse) == "detail altered alone"
    assert outcome(kept, none, none) == "nothing"
    assert outcome(moved, worse, none) == "more than detail"
    assert outcome(fallen, worse, none) == "collapse (FC)"
    for few in (2, 3):
        assert outcome(*[np.full(few, 0.1)] * 3) == "cannot tell"
    assert outcome(fallen[:4], worse[:4], none[:4]) == "collapse (FC)"


@pytest.mark.long
def test_a_dose_is_drawn_and_told_apart(tmp_path: Path) -> None:
    """A planted channel: the largest dose of one channel changes far more energy than the lowest one does."""
    planted = plant("dit", channels=(5,), block=1, carrier=True, spread=0.5, strength=50.0)
    run = interp.trace(planted.model, planted.prompts(3), out=tmp_path / "run.zarr", steps=4)
    prepared = dose(
        planted.model,
        planted.prompts(4),
        out=tmp_path / "dose.zarr",
        counts=[1, 4],
        block=1,
        run=run,
        budget=120,
        steps=4,
        repeats=2,
    )
    drawn = prepared.run()
    assert int(drawn.done.sum()) == int(prepared.planned.sum()) <= 120 < drawn.done.size
    found = drawn.result("dose")
    for blocks in ("1", "all"):
        chosen = (found["count"] == 1) & (found["blocks"] == blocks) & (found["window"] == "all")
        here = [found.isel(dose=np.flatnonzero(chosen & (found["kind"] == kind))) for kind in ("massive", "lowest")]
        energies = [float(one["energy"].squeeze()) for one in here]
        assert energies[0] > 10 * energies[1]
    assert found["prompts"].min() == 2  # two rows a dose: of two prompts, not two seeds of one
