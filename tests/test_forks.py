"""Arms as rows that fork off a clean run, against runs of their own; the engine that draws them; norm controls by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import KINDS, every_family, prompts_for
from messages import refused

import interp
from interp.base.executor import Execution
from interp.experiments.clean import clean_run, sample
from interp.experiments.design import Drawing
from interp.experiments.draw import Arm, ByArms
from interp.interventions import Displace, NormsAsIfZero, Scale, SwapConditioning, Zero, ZeroNormsKept, edited
from interp.interventions.forks import Forks
from interp.testing.edit_laws import assert_arms_alone
from interp.tracing.prepare import Prepared, prepare

STEPS = 4
CLOSE = {"rtol": 1e-4, "atol": 2e-5}  # rows of another batch composition


ARMS: list[list[Any]] = [
    [Zero(channels=[3, 5], blocks=1)],
    [Zero(channels=[3, 5], blocks=1, steps=1), Scale(2.0, channels=1, blocks="2-3", steps="2-3")],
    [Zero(channels=4, blocks=2, steps=2, tokens="0-3")],
    [],
    [ZeroNormsKept(channels=[2], blocks=1, steps=3)],
]


def drawing(prepared: Prepared, arms: Sequence[Arm], out: Path, size: int = 8, **parameters: Any) -> Drawing:
    """A design of arms of our own."""
    own: dict[str, Any] = {"kind": "try", "out": out, "parameters": parameters, "execution": Execution(size)}
    units = lambda size: ByArms(prepared, arms, size)  # noqa: E731
    return Drawing(prepared=prepared, arms=tuple(arms), units=units, measure=lambda made: {}, **own)


@pytest.mark.parametrize("name", every_family(["dual_model", "flux_model", "flux2_model"]))
def test_more_arms_in_one_batch_equal_runs_of_their_own(name: str, request: pytest.FixtureRequest) -> None:
    """Norm controls and a swap of text tokens at the last of four steps; the other arms are in `FamilyTests`."""
    model = request.getfixturevalue(name)
    prepared = prepare(model, prompts_for(name)[:1], steps=STEPS)
    arms = [arm for arm in ARMS if model.anatomy.has_norms or not norms(arm)]
    if "text" in model.anatomy.stream_names:
        arms.append([Zero(channels=[3, 5], blocks=1, stream="both", steps="0-1")])
        arms.append([SwapConditioning.of(model, prompt=prompts_for(name)[1], tokens=True, steps=3)])
    assert_arms_alone(prepared, arms)


def norms(edits: list[Any]) -> bool:
    return any(isinstance(edit, ZeroNormsKept) for edit in edits)


def test_what_arms_share_is_computed_once(tiny_model: interp.Model) -> None:
    prepared = prepare(tiny_model, ["a red cat"], steps=STEPS)
    row = prepared.plan.rows()[0]
    clean = clean_run(prepared, row)
    seen: list[tuple[str, int]] = []
    handles = [
        tiny_model.pipe.transformer.get_submodule(block.path).register_forward_hook(
            lambda m, a, output, path=block.path: seen.append((path, output[1].shape[0]))
        )
        for block in tiny_model.anatomy.blocks
    ]
    arms = [[Zero(channels=3, blocks=block, steps=2)] for block in (0, 1, 2)]
    try:
        forks = Forks(tiny_model.anatomy, arms, clean.calls)
        with forks.drawing(tiny_model.pipe.transformer):
            sample(prepared, [row] * 3)
    finally:
        for handle in handles:
            handle.remove()
    blocks = len(tiny_model.anatomy.blocks)
    assert len(seen) == 2 * blocks  # steps 0 and 1 are the clean run's: no block is run
    # rows at each block's own output: the hook that counts was there first, so it sees them before that block's arm leaves
    assert [rows for _, rows in seen[:blocks]] == [1, 2, 3, 3][:blocks]
    assert [rows for _, rows in seen[blocks:]] == [3] * blocks
    assert forks.forwards == (1 + 3 / 4 + 2 / 4) + 3  # step 2: the shared prefix, which becomes the last arm's, and two forks


@contextlib.contextmanager
def norms_by_hand(model: interp.Model, block: int, channel: int, *, zero: bool) -> Iterator[None]:
    """SD3, image stream: the two LayerNorm controls written out; `zero` also zeroes the channel in the stream."""
    transformer, handles = model.pipe.transformer, []
    taken: dict[str, Any] = {}

    def after_block(module: Any, arguments: Any, output: Any) -> Any:
        taken["value"] = output[1][..., channel].clone()
        if not zero:
            return None
        image = output[1].clone()
        image[..., channel] = 0.0
        return output[0], image

    def norm(module: Any, arguments: Any, output: Any) -> Any:
        state = arguments[0]
        other = state.clone()
        other[..., channel] += taken["value"] if zero else -taken["value"]
        return (state - other.mean(-1, keepdim=True)) / torch.sqrt(other.var(-1, keepdim=True, correction=0) + 1e-6)

    blocks = transformer.transformer_blocks
    handles.append(blocks[block].register_forward_hook(after_block))
    for later in blocks[block + 1 :]:
        handles.append(later.norm1.norm.register_forward_hook(norm))
        handles.append(later.norm2.register_forward_hook(norm))
    handles.append(transformer.norm_out.norm.register_forward_hook(norm))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("zero", [True, False])
def test_norm_controls_equal_hooks_written_by_hand(zero: bool, tiny_model: interp.Model) -> None:
    prepared = prepare(tiny_model, ["a red cat"], steps=STEPS)
    row = prepared.plan.rows()[0]
    edit = (ZeroNormsKept if zero else NormsAsIfZero)(channels=3, blocks=1)
    with norms_by_hand(tiny_model, 1, 3, zero=zero):
        _, expected = sample(prepared, [row])
    with edited(tiny_model, [edit]):
        _, found = sample(prepared, [row])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    drawn = interp.generate(tiny_model, ["a red cat"], steps=STEPS, interventions=[edit])
    np.testing.assert_allclose(drawn["latents"].to_numpy(), expected, rtol=1e-5, atol=1e-6)  # in a trace as well
    _, cache = tiny_model.run_with_cache("a red cat", "block.1/image/hidden", steps=STEPS, interventions=[edit])
    size = np.abs(cache["hidden", 1].sel(channel=3) if "channel" in cache["hidden", 1].coords else cache["hidden", 1][..., 3])
    assert (float(size.max()) == 0.0) == zero  # what is recorded is the state that goes on
    assert not np.allclose(expected, clean_run(prepared, row).latents, atol=1e-4)


def test_norm_controls_in_joined_streams(flux_model: interp.Model) -> None:
    """Flux's single blocks normalise text and image tokens together, text first: written out for the first of them."""
    transformer, last_double = flux_model.pipe.transformer, len(flux_model.pipe.transformer.transformer_blocks) - 1
    prepared = prepare(flux_model, ["a red cat"], steps=2)
    row, taken, handles = prepared.plan.rows()[0], {}, []

    def after_block(module: Any, arguments: Any, output: Any) -> None:
        taken["image"] = output[1][..., 3].clone()

    def norm(module: Any, arguments: Any, output: Any) -> Any:
        state, other = arguments[0], arguments[0].clone()
        text = state.shape[1] - taken["image"].shape[1]
        other[:, text:, 3] -= taken["image"]
        return (state - other.mean(-1, keepdim=True)) / torch.sqrt(other.var(-1, keepdim=True, correction=0) + 1e-6)

    handles.append(transformer.transformer_blocks[last_double].register_forward_hook(after_block))
    handles.append(transformer.single_transformer_blocks[0].norm.norm.register_forward_hook(norm))
    _, expected = sample(prepared, [row])
    for handle in handles:
        handle.remove()
    with edited(flux_model, [NormsAsIfZero(channels=3, blocks=last_double, reach="next")]):
        _, found = sample(prepared, [row])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(expected, clean_run(prepared, row).latents, atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_norm_controls_of_nothing_change_nothing(name: str, request: pytest.FixtureRequest) -> None:
    """A channel that is 0 already: with it gone, no LayerNorm has another mean or variance."""
    model = request.getfixturevalue(name)
    prepared = prepare(model, prompts_for(name)[:1], steps=2)
    row = prepared.plan.rows()[0]
    zero = Zero(channels=3, blocks=1)
    with edited(model, [zero]):
        _, expected = sample(prepared, [row])
    for control in (ZeroNormsKept, NormsAsIfZero):
        with edited(model, [zero, control(channels=3, blocks=1)]):
            _, found = sample(prepared, [row])
        np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize("name", KINDS)
def test_zero_and_its_norm_controls_are_three_different_pictures(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    prepared = prepare(model, prompts_for(name)[:1], steps=2)
    row = prepared.plan.rows()[0]
    found = {}
    for kind in (Zero, ZeroNormsKept, NormsAsIfZero):
        with edited(model, [kind(channels=3, blocks=1)]):
            found[kind] = sample(prepared, [row])[1]
    assert len({value.tobytes() for value in found.values()}) == 3


def test_next_norm_alone_is_less_than_all(tiny_model: interp.Model) -> None:
    prepared = prepare(tiny_model, ["a red cat"], steps=2)
    row = prepared.plan.rows()[0]
    found = []
    for reach in ("all", "next"):
        with edited(tiny_model, [NormsAsIfZero(channels=3, blocks=1, reach=reach)]):
            found.append(sample(prepared, [row])[1])
    assert not np.array_equal(*found)
    with refused(interp.InputError, "reach", "all, next", "some"):
        NormsAsIfZero(channels=3, blocks=1, reach="some")


def test_displace_moves_by_what_the_channels_hold() -> None:
    state = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    site = interp.Site(1, "image", "hidden")
    moved = Displace(channels=[2, 6], blocks=1, seed=4).apply(site, 0, state)
    assert torch.equal(moved[..., [2, 6]], state[..., [2, 6]])
    torch.testing.assert_close((moved - state).norm(dim=-1), state[..., [2, 6]].norm(dim=-1))
    some = Displace(channels=[2, 6], blocks=1, seed=4, tokens=[1, 3]).apply(site, 0, state)
    assert torch.equal(some[:, [0, 2, 4]], state[:, [0, 2, 4]])
    assert torch.equal(some[:, [1, 3]], moved[:, [1, 3]])
    assert not torch.equal(Displace(channels=[2, 6], blocks=1, seed=5).apply(site, 0, state), moved)


def test_an_experiment_is_resumed_cell_by_cell(tiny_model: interp.Model, tmp_path: Path) -> None:
    prepared = prepare(tiny_model, ["a red cat", "the green circle"], steps=STEPS)
    arms = [Arm("original"), *(Arm(f"zero {b}", (Zero(channels=3, blocks=b),)) for b in (0, 1, 2))]
    whole = drawing(prepared, arms, tmp_path / "whole.zarr", 2, k=1).run()
    assert whole.finished
    assert whole.done.shape == (2, 4)

    class StopError(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.done == 5:
            raise StopError

    with pytest.raises(StopError):
        drawing(prepared, arms, tmp_path / "part.zarr", 2, k=1).run(on_progress=stop)
    part = interp.open_experiment(tmp_path / "part.zarr")
    assert int(part.done.sum()) == 5
    assert not part.finished
    drawn: list[int] = []
    part = drawing(prepared, arms, tmp_path / "part.zarr", 2, k=1).run(on_progress=lambda p: drawn.append(p.made))
    assert part.finished
    assert drawn[-1] == 3
    for prompt in range(2):
        for arm in range(4):
            np.testing.assert_allclose(part.latents(prompt, arm), whole.latents(prompt, arm), **CLOSE)
    plain = interp.generate(tiny_model, ["a red cat", "the green circle"], steps=STEPS)
    np.testing.assert_array_equal(whole.pictures(0)[1], plain["image"].to_numpy())
    with refused(interp.PlanError, "arms", "part.zarr"):
        drawing(prepared, arms[:2], tmp_path / "part.zarr", 2, k=1).run()
    with refused(interp.InputError, "part.zarr", "experiment"):
        interp.open_run(tmp_path / "part.zarr")


def test_cost_is_what_is_run(tiny_model: interp.Model, tmp_path: Path) -> None:
    prepared = prepare(tiny_model, ["a red cat"], steps=STEPS)
    arms = [Arm("original"), Arm("late", (Zero(channels=3, blocks=1, steps=2),)), Arm("all", (Zero(channels=3, blocks=0),))]
    design = drawing(prepared, arms, tmp_path / "cost.zarr", 1)
    assert design.cost.pictures == 3
    assert design.cost.forwards == STEPS + 2 + STEPS  # the clean run, and each arm from the step it leaves in
    drawn = design.run()
    cells = drawn.cells["forwards"].to_numpy()[0]
    np.testing.assert_array_equal(cells, [STEPS, 2, STEPS])


@pytest.mark.parametrize("name", ["tiny_model", "flux_model", "dit_model"])
def test_cost_predicts_what_runs(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = request.getfixturevalue(name)
    prepared = prepare(model, prompts_for(name)[:1], steps=STEPS)
    edits = [Zero(channels=3, blocks=b, steps=s) for s in (0, 2) for b in (0, 1, 3)]
    arms = [
        Arm("original"),
        *(Arm(str(edit), (edit,)) for edit in edits),
        Arm("gate", (Scale(0.0, channels=3, blocks=1, at="alpha.attn"),)),
    ]
    design = drawing(prepared, arms, tmp_path / "cost.zarr", 4)
    predicted = design.cost.forwards
    drawn = design.run()
    assert float(drawn.cells["forwards"].sum()) == pytest.approx(predicted)


def _keep(model: interp.Model, block: int, states: dict[int, Any]) -> Any:
    module = model.pipe.transformer.transformer_blocks[block]
    return module.register_forward_hook(lambda m, a, output: states.update({block: output[1][0]}))


def test_a_displacement_is_as_large_as_zeroing_at_every_block(demo_model: interp.Model) -> None:
    """Channel 29 at all blocks: the states change by as much as under zeroing it, not by more with every block."""
    from interp.base.sites import Site

    prepared = prepare(demo_model, ["a red circle"], steps=1)
    row, blocks = prepared.plan.rows()[0], range(8)
    sites = [(0, Site(block, "image", "hidden")) for block in blocks]
    clean = clean_run(prepared, row, sites).states
    seeds = {}
    both = {"zero": Zero(channels=29, blocks=None), "displaced": Displace(channels=29, blocks=None, seed=1)}
    for kind, edit in both.items():
        states: dict[int, Any] = {}
        with edited(demo_model, [edit]):
            handles = [_keep(demo_model, block, states) for block in blocks]
            sample(prepared, [row])
            for handle in handles:
                handle.remove()
        seeds[kind] = [float((states[b] - clean[0, Site(b, "image", "hidden")]).norm()) for b in blocks]
    assert seeds["displaced"][0] == pytest.approx(seeds["zero"][0], rel=1e-3)
    assert max(d / z for d, z in zip(seeds["displaced"], seeds["zero"], strict=True)) < 2.0


def test_the_energy_of_an_edit_at_many_blocks_is_what_is_missing(tiny_model: interp.Model, tmp_path: Path) -> None:
    """Zeroing a channel at every block takes as large a share of each state as at one; the dose grows with blocks."""
    prepared = prepare(tiny_model, ["a red cat"], steps=2)
    arms = [Arm("one", (Zero(channels=3, blocks=1),)), Arm("all", (Zero(channels=3, blocks=None),))]
    cells = drawing(prepared, arms, tmp_path / "e.zarr").run().cells
    one, everywhere = cells["changed_energy"].to_numpy()[0]
    assert 0.3 < everywhere / one < 3.0
    few, many = cells["dose"].to_numpy()[0]
    assert few == pytest.approx(one / 4, rel=1e-4)
    assert many == pytest.approx(everywhere, rel=1e-4)
