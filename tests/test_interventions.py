"""Edits against hand-written torch hooks, bit for bit in one batch, on a model of each mechanism; both drivers; refusals."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import KINDS, PROMPTS, kinds, prompts_for
from messages import refused
from torch import Tensor

import interp
from interp.interventions import (
    Add,
    Clamp,
    Replace,
    Scale,
    SetMean,
    Transport,
    Values,
    Zero,
    edited,
    from_json,
)
from interp.testing import untraced
from interp.tracing.prepare import prepare

STEPS = 3


@contextlib.contextmanager
def by_hand(
    model: interp.Model, block: int, stream: str, change: Callable[[Tensor], Tensor], step: int | None = None
) -> Iterator[None]:
    """One plain hook on one block's output, written without any of the package's edits."""
    described = model.anatomy.blocks[block]
    module, calls = model.pipe.transformer.get_submodule(described.path), [0]

    def hook(m: Any, a: Any, output: Any) -> Any:
        calls[0] += 1
        if step is not None and calls[0] - 1 != step:
            return output
        if not isinstance(output, tuple):
            return change(output)
        item = described.hidden[stream]
        return tuple(change(value) if number == item else value for number, value in enumerate(output))

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def picture(model: interp.Model, name: str) -> Any:
    """The plain pipeline's pictures, of two prompts in one batch."""
    return untraced(model, prepare(model, prompts_for(name)[:2], steps=STEPS))


def drawn(model: interp.Model, name: str, *edits: Any) -> Any:
    return interp.generate(model, prompts_for(name)[:2], steps=STEPS, batch_size=2, interventions=edits)["image"].to_numpy()


def zeroed(value: Tensor) -> Tensor:
    value = value.clone()
    value[:, :, 3] = 0
    value[:, :, 5] = 0
    return value


def halved_corner(value: Tensor) -> Tensor:
    value = value.clone()
    for token in (0, 2):
        value[:, token, 4] = value[:, token, 4] * 1.5
    return value


def raised(value: Tensor) -> Tensor:
    value = value.clone()
    value[:, :, 3] = value[:, :, 3] + 2.0  # one channel: the next LayerNorm takes a number added to all of them away
    return value


def averaged(value: Tensor) -> Tensor:
    value = value.clone()
    value[:, :, 3] = value[:, :, [3]].mean(dim=1, dtype=torch.float32)
    return value


HANDS: list[tuple[Any, Callable[[Tensor], Tensor], int | None]] = [
    (Zero(channels=[3, 5], blocks=1), zeroed, None),
    (Scale(1.5, channels=4, blocks=1, tokens="0,2"), halved_corner, None),
    (Add(2.0, channels=3, blocks=1, steps=1), raised, 1),
    (Clamp(-0.2, 0.3, channels=None, blocks=1), lambda value: value.clamp(-0.2, 0.3), None),
    (SetMean(channels=3, blocks=1), averaged, None),
]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        pytest.param(name, number, marks=() if number == 0 or name in ("dual_model", "flux2_model") else pytest.mark.full)
        for name in KINDS
        for number in range(len(HANDS))
    ],
)
def test_each_edit_equals_a_hook_written_by_hand(name: str, number: int, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    edit, change, step = HANDS[number]
    with by_hand(model, 1, "image", change, step):
        expected = picture(model, name)
    np.testing.assert_array_equal(drawn(model, name, edit), expected)
    assert not np.array_equal(expected, picture(model, name))  # the edit does something, and the hook is gone
    with edited(model, [edit]):
        np.testing.assert_array_equal(picture(model, name), expected)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("dit_model", "sana_model")])
def test_text_and_both_streams(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    with by_hand(model, 1, "text", zeroed):
        only_text = picture(model, name)
        with by_hand(model, 1, "image", zeroed):
            both = picture(model, name)
    np.testing.assert_array_equal(drawn(model, name, Zero(channels=[3, 5], blocks=1, stream="text")), only_text)
    np.testing.assert_array_equal(drawn(model, name, Zero(channels=[3, 5], blocks=1, stream="both")), both)


@pytest.mark.parametrize("name", kinds("dual_model", "flux2_model", "sana_model"))
def test_null_edits_give_the_same_picture(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model, prompts = request.getfixturevalue(name), prompts_for(name)[:1]
    plain = interp.generate(model, prompts, steps=STEPS)
    run = interp.trace(model, prompts, out=tmp_path / "run.zarr", steps=STEPS, record=interp.Record(hidden=True))
    itself = Values.of(run.hidden["image"]["hidden"].sel(prompt=0, block=[1, 2]), "itself")
    alpha = Values.of(run.gates["alpha"].sel(prompt=0, stream="image", gate="attn", block=[1]), "itself")
    for edit in (
        Scale(1.0, channels=None, blocks=None),
        Add(0.0, channels=[1], blocks="0-2"),
        Clamp(None, 1e9, channels=None, blocks=None, stream="image"),
        Replace(itself, channels=None, blocks=[1, 2]),
        Transport(itself, channels=[2, 4], blocks=[1], tokens="1-5", strength=0.7),
        Replace(alpha, channels=None, blocks=[1], at="alpha.attn"),
    ):
        again = interp.generate(model, prompts, steps=STEPS, interventions=[edit])
        levels = np.abs(again["image"].astype(int) - plain["image"].astype(int))
        assert int(levels.max()) <= 1, repr(edit)
        np.testing.assert_allclose(again["latents"], plain["latents"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", kinds("dual_model", "flux2_model", "sana_model"))
def test_edited_alpha_is_what_the_store_holds_and_both_drivers_agree(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model, prompts = request.getfixturevalue(name), prompts_for(name)[:2]
    edits = [Scale(3.0, channels=[2, 7], blocks=1, at="alpha.attn"), Clamp(-0.01, 0.01, channels=4, blocks=1, at="alpha.attn")]
    plain = interp.trace(model, prompts, out=tmp_path / "plain.zarr", steps=STEPS, batch_size=2)
    run = interp.trace(model, prompts, out=tmp_path / "run.zarr", steps=STEPS, batch_size=2, interventions=edits)
    here = {"stream": "image", "gate": "attn", "block": 1}
    before, after = (r.gates["alpha"].sel(here).to_numpy() for r in (plain, run))
    # a block that adds a table of its own to what it is given can be given any alpha to one rounding of the table
    rounding = {"rtol": 2e-7, "atol": 2e-7 if any(m.table for m in model.anatomy.blocks[1].modulations) else 0}
    same = np.testing.assert_allclose if rounding["atol"] else np.testing.assert_array_equal
    given = rounding if rounding["atol"] else {}
    same(after[..., [2, 7]], before[..., [2, 7]] * np.float32(3.0), **given)
    same(after[..., 4], before[..., 4].clip(-0.01, 0.01), **given)
    np.testing.assert_array_equal(after[..., 8:], before[..., 8:])
    assert run.plan["interventions"] == [edit.to_json() for edit in edits]
    with edited(model, edits):
        np.testing.assert_array_equal(picture(model, name), run.images["image"])
    assert np.abs(run.images["latents"] - plain.images["latents"]).max() > 0


def test_edits_where_both_streams_are_one_state(flux2_model: interp.Model) -> None:
    model, name = flux2_model, "flux2_model"
    text = prepare(model, ["a red cat"], steps=STEPS).layout.tokens("text")
    single = model.pipe.transformer.single_transformer_blocks[1]
    for stream, place in (("image", slice(text, None)), ("text", slice(0, text)), ("both", slice(None))):

        def hook(module: Any, arguments: Any, output: Tensor, place: slice = place) -> Tensor:
            output = output.clone()
            output[:, place, 3] = 0.0
            return output

        handle = single.register_forward_hook(hook)
        expected = picture(model, name)
        handle.remove()
        edit = Zero(channels=3, blocks=3, stream=stream)
        np.testing.assert_array_equal(drawn(model, name, edit), expected)
        with edited(model, [edit]):
            np.testing.assert_array_equal(picture(model, name), expected)


@pytest.mark.parametrize("block", [0, 1])
def test_a_shared_gate_is_edited_for_one_block_alone(block: int, flux2_model: interp.Model) -> None:
    """All blocks of a kind receive the same alpha; an edit of one block's leaves the other's, and equals a hook by hand."""
    model, name = flux2_model, "flux2_model"

    def hook(module: Any, arguments: Any, named: Any) -> Any:
        values = list(named["temb_mod_img"].chunk(6, dim=-1))
        values[5] = values[5] * 4.0
        return arguments, {**named, "temb_mod_img": torch.cat(values, dim=-1)}

    handle = model.pipe.transformer.transformer_blocks[block].register_forward_pre_hook(hook, with_kwargs=True)
    expected = picture(model, name)
    handle.remove()
    edit = Scale(4.0, channels=None, blocks=block, at="alpha.mlp")
    np.testing.assert_array_equal(drawn(model, name, edit), expected)
    assert not np.array_equal(expected, picture(model, name))
    _, cache = model.run_with_cache("a red cat", "*/image/alpha.mlp", steps=2, interventions=[edit])
    assert np.array_equal(cache["alpha.mlp", block], 4 * cache["alpha.mlp", 1 - block])


def test_edits_compose_in_order(tiny_model: interp.Model) -> None:
    first, second = Add(1.0, channels=3, blocks=1), Scale(2.0, channels=3, blocks=1)

    def by_order(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, :, 3] = (value[:, :, 3] + 1.0) * 2.0
        return value

    with by_hand(tiny_model, 1, "image", by_order):
        expected = picture(tiny_model, "tiny_model")
    np.testing.assert_array_equal(drawn(tiny_model, "tiny_model", first, second), expected)
    assert not np.array_equal(drawn(tiny_model, "tiny_model", second, first), expected)


def test_transport_is_a_line_between_two_runs(tiny_model: interp.Model, tiny_run: interp.Run) -> None:
    other = Values.of(tiny_run.hidden["image"]["hidden"].sel(prompt=2), "prompt 2")
    state = torch.randn(2, 256, 32, generator=torch.Generator().manual_seed(0))[:, : len(other.coordinates["token"])]
    site = interp.Site(1, "image", "hidden")
    for strength in (0.0, 0.4, 1.0):
        moved = Transport(other, channels=[3, 9], blocks=1, tokens=[0, 5], strength=strength).apply(site, 2, state)
        wanted = state.clone()
        there = tiny_run.hidden["image"]["hidden"].sel(prompt=2, step=2, block=1).to_numpy()
        for token in (0, 5):
            for channel in (3, 9):
                wanted[:, token, channel] += strength * (float(there[token, channel]) - state[:, token, channel])
        torch.testing.assert_close(moved, wanted)
    mean = Values.of(tiny_run.stats["mean"].sel(stream="image").mean("prompt"), "mean")
    set_to = SetMean(channels=[3], blocks=1, values=mean).apply(site, 1, state)
    expected = float(tiny_run.stats["mean"].sel(stream="image", step=1, block=1, channel=3).mean())
    assert set_to[:, :, 3].numpy() == pytest.approx(expected)
    assert torch.equal(set_to[:, :, 4], state[:, :, 4])


ROUND_TRIPS = [
    Zero(channels="3,5-7", blocks=1, stream="both", steps=[0, 2]),
    Scale(0.5, channels=None, blocks="0-2", tokens=[1, 4]),
    Add(-1, channels=1, blocks=None),
    Clamp(None, 2.0, channels=[1], blocks=[0], at="alpha.mlp"),
    SetMean(channels=2, blocks=3),
]


@pytest.mark.parametrize("edit", ROUND_TRIPS, ids=repr)
def test_edits_survive_json_and_print_as_they_are_written(edit: Any) -> None:
    import json

    assert from_json(json.loads(json.dumps(edit.to_json()))) == edit
    names = {kind.__name__: kind for kind in (Zero, Scale, Add, Clamp, SetMean)}
    assert eval(repr(edit), names) == edit


def test_values_are_known_by_their_digest(tiny_run: interp.Run) -> None:
    values = Values.of(tiny_run.hidden["image"]["hidden"].sel(prompt=0, block=[1]), "run A")
    edit = Replace(values, channels=[1], blocks=1)
    stored = edit.to_json()
    assert stored["values"]["digest"] == values.digest
    assert from_json(stored, values) == edit
    other = Values.of(tiny_run.hidden["image"]["hidden"].sel(prompt=1, block=[1]), "run B")
    for given in (None, other):
        with refused(interp.InputError, "Replace", "run A", values.digest):
            from_json(stored, given)


def test_an_edit_that_touches_nothing_is_an_error(tiny_model: interp.Model) -> None:
    last_text = Zero(channels=1, blocks=3, stream="text")  # SD3's last text block does not exist
    with refused(interp.InputError, "intervention", "Zero(channels=[1], blocks=[3], stream='text')"):
        interp.generate(tiny_model, ["a cat"], steps=2, interventions=[last_text])
    speech = Zero(channels=1, blocks=1, stream="speech")
    with refused(interp.InputError, "stream", "image, text", "'speech'"), edited(tiny_model, [speech]):
        pass
    with refused(interp.InputError, "intervention", "stream='text'"), edited(tiny_model, [last_text]):
        picture(tiny_model, "tiny_model")
    with refused(interp.InputError, "transformer", "call"), edited(tiny_model, [last_text]):
        pass


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Zero(channels=-1, blocks=1), ("channels", 0)),
        (lambda: Zero(channels=[1, 1], blocks=1), ("channels", "once")),
        (lambda: Zero(channels=1, blocks=1, stream="a word"), ("stream", "image or text", "'a word'")),
        (lambda: Zero(channels=1, blocks=1, at="beta"), ("at", "hidden", "alpha.mlp", "'beta'")),
        (lambda: Zero(channels=1, blocks=1, at="alpha.mlp", tokens=[1]), ("alpha.mlp", "tokens")),
        (lambda: Scale(float("nan"), channels=1, blocks=1), ("factor", "nan")),
        (lambda: Clamp(2, 1, channels=1, blocks=1), ("Clamp", "low <= high")),
        (lambda: Clamp(None, None, channels=1, blocks=1), ("Clamp", "low <= high")),
        (lambda: SetMean(channels=1, blocks=1, at="alpha.mlp"), ("mean", "tokens", "gate")),
    ],
)
def test_impossible_edits_are_refused(make: Callable[[], Any], words: tuple[Any, ...]) -> None:
    with refused(interp.InputError, *words):
        make()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (Zero(channels=99, blocks=1), ("channels", "0..31", 99)),
        (Zero(channels=1, blocks=4), ("blocks", "0..3", 4)),
        (Zero(channels=1, blocks=1, steps=5), ("steps", "0..1", 5)),
        (Zero(channels=1, blocks=1, tokens=64), ("tokens", "image", "0..63", 64)),
    ],
)
def test_edits_beyond_the_model_are_refused_before_it_runs(edit: Any, words: Any, tiny_model: interp.Model) -> None:
    with refused(interp.InputError, *words):
        interp.generate(tiny_model, ["a cat"], steps=2, interventions=[edit])


def test_a_stream_the_model_has_not_is_refused(dit_model: interp.Model) -> None:
    with refused(interp.InputError, "text", "stream", "image"):
        interp.generate(dit_model, ["cat"], steps=1, interventions=[Zero(channels=1, blocks=1, stream="text")])


def test_values_that_lack_what_is_selected_are_refused(tiny_run: interp.Run, tiny_model: interp.Model) -> None:
    values = Values.of(tiny_run.hidden["image"]["hidden"].sel(prompt=0, block=[1], step=[0]), "run A")
    with refused(interp.InputError, "run A", "block 2", "blocks"):
        Replace(values, channels=1, blocks=2)
    with refused(interp.InputError, "run A", "step 1", "steps"):
        Replace(values, channels=[1], blocks=1).apply(interp.Site(1, "image", "hidden"), 1, torch.zeros(1, 64, 32))
    with refused(interp.InputError, "Replace", "(step, block, channel)"):
        Replace(values, channels=1, blocks=1, at="alpha.mlp")
    with refused(interp.InputError, "prompt", "one"):
        Values.of(tiny_run.hidden["image"]["hidden"], "everything")
    with refused(interp.InputError, "text", "NaN"):
        Values.of(tiny_run.stats["mean"].sel(stream="text", prompt=0), "text")


def test_generate_draws_the_rows_of_a_trace(tiny_model: interp.Model, tiny_run: interp.Run) -> None:
    made = interp.generate(tiny_model, PROMPTS, repeats=2)
    np.testing.assert_array_equal(made["image"], tiny_run.images["image"])
    np.testing.assert_array_equal(made["seed"], tiny_run.images["seed"])
    np.testing.assert_array_equal(made["prompt_text"], tiny_run.images["prompt_text"])
    assert made.attrs["plan"]["weights"] == tiny_run.plan["weights"]
    assert made["latents"].dims == tiny_run.images["latents"].isel(step=-1).dims
