"""Swaps of what a model is conditioned on: text, pooled text, timestep, class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import kinds, prompts_for
from messages import refused

import interp
from interp.experiments.grid import tabulate
from interp.interventions import SwapConditioning, edited, from_json
from interp.testing import untraced
from interp.tracing.group import pipeline_arguments
from interp.tracing.prepare import prepare

STEPS = 3


@pytest.mark.parametrize(
    "name",
    ["tiny_model", "flux_model", *(pytest.param(f"{n}_model", marks=pytest.mark.full) for n in ("dual", "schnell", "demo"))],
)
@pytest.mark.parametrize("parts", [("pooled",), ("tokens",), ("pooled", "tokens")], ids="+".join)
def test_swapped_text_equals_a_call_with_the_other_embeddings(
    name: str, parts: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    """The reference is the pipeline itself, given the embeddings instead of prompts."""
    model, (own, other) = request.getfixturevalue(name), prompts_for(name)[:2]
    swap = SwapConditioning.of(model, prompt=other, **dict.fromkeys(parts, True))
    pipe, settings = model.pipe, model.settings()
    length = settings["max_sequence_length"]
    flux = model.anatomy.family == "flux"
    more = {} if flux else {"prompt_3": None, "do_classifier_free_guidance": False}
    with torch.no_grad():
        both = {text: pipe.encode_prompt(text, None, max_sequence_length=length, **more) for text in (own, other)}
    encoded = {text: (result[0], result[1 if flux else 2]) for text, result in both.items()}
    tokens = encoded[other if "tokens" in parts else own][0]
    pooled = encoded[other if "pooled" in parts else own][1]
    prepared = prepare(model, [own], steps=STEPS)
    arguments = pipeline_arguments(model, prepared.plan, prepared.plan.rows())
    del arguments["prompt"]
    pictures = pipe(**arguments, prompt_embeds=tokens, pooled_prompt_embeds=pooled).images
    expected = (np.stack(pictures) * 255).round().astype(np.uint8)
    found = interp.generate(model, [own], steps=STEPS, interventions=[swap])
    np.testing.assert_array_equal(found["image"], expected)
    with edited(model, [swap]):
        np.testing.assert_array_equal(untraced(model, prepared), expected)
    assert found.attrs["plan"]["interventions"][0]["prompt"] == other


@pytest.mark.parametrize("name", kinds("dual_model", "dit_model", "flux2_model"))
def test_a_swapped_timestep_changes_the_gates_as_the_table_says(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model, prompts = request.getfixturevalue(name), prompts_for(name)[:1]
    swap = SwapConditioning.of(model, timestep=300.0, steps=[1])
    run = interp.trace(model, prompts, out=tmp_path / "run.zarr", steps=STEPS, interventions=[swap])
    plain = interp.trace(model, prompts, out=tmp_path / "plain.zarr", steps=STEPS)
    table = tabulate(model, prompts, list(range(model.anatomy.channels)), timesteps=[300.0, 900.0])
    alpha = run.gates["alpha"].sel(prompt=0)
    np.testing.assert_allclose(
        alpha.sel(step=1), table["alpha"].sel(timestep=300.0).isel(prompt=0, missing_dims="ignore"), atol=1e-5
    )
    np.testing.assert_array_equal(alpha.sel(step=[0, 2]), plain.gates["alpha"].sel(prompt=0, step=[0, 2]))
    with edited(model, [swap]):
        np.testing.assert_array_equal(untraced(model, prepare(model, prompts, steps=STEPS)), run.images["image"])


def test_a_class_is_swapped_as_pooled_text(dit_model: interp.Model) -> None:
    swap = SwapConditioning.of(dit_model, prompt="7", pooled=True)
    found = interp.generate(dit_model, ["cat"], steps=STEPS, seeds=[0], interventions=[swap])
    np.testing.assert_array_equal(found["image"], interp.generate(dit_model, ["7"], steps=STEPS, seeds=[0])["image"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, ("prompt", "pooled=True", "tokens=True", "timestep")),
        ({"prompt": "cat"}, ("prompt", "pooled=True", "tokens=True")),
        ({"pooled": True}, ("prompt", "pooled=True", "tokens=True")),
        ({"timestep": 2000.0}, ("timestep", "0..1000", 2000)),
        ({"prompt": "cat", "tokens": True}, ("tokens", "class", "pooled=True")),
    ],
)
def test_impossible_swaps_are_refused(arguments: dict[str, Any], words: tuple[Any, ...], dit_model: interp.Model) -> None:
    with refused(interp.InputError, *words):
        SwapConditioning.of(dit_model, **arguments)


def test_a_swap_prints_what_it_does_and_must_act(tiny_model: interp.Model) -> None:
    swap = SwapConditioning.of(tiny_model, prompt="a dog", pooled=True, timestep=10.0, steps=[7])
    assert repr(swap) == "SwapConditioning(prompt='a dog', pooled=True, timestep=10.0, steps=[7])"
    assert swap.to_json()["digest"] == swap.digest
    with refused(interp.InputError, "intervention", "SwapConditioning", "steps=[7]"):
        interp.generate(tiny_model, ["a cat"], steps=2, interventions=[swap])


def test_a_swap_reads_back_from_json_with_its_model(tiny_model: interp.Model) -> None:
    swap = SwapConditioning.of(tiny_model, prompt="two dog", pooled=True, steps="1-2")
    again = from_json(swap.to_json(), model=tiny_model)
    assert again.to_json() == swap.to_json()
    with refused(interp.InputError, "SwapConditioning", "model"):
        from_json(swap.to_json())
    with refused(interp.InputError, "model", "SwapConditioning"):
        from_json({**swap.to_json(), "digest": "0" * 16}, model=tiny_model)


def test_controls_read_back_from_json() -> None:
    from interp.interventions import Displace, NormsAsIfZero, ZeroNormsKept

    for edit in (
        Displace(channels=[1, 2], blocks=3, seed=7),
        ZeroNormsKept(channels=4, blocks="0-2", reach="next"),
        NormsAsIfZero(channels=4, blocks=None, stream="both"),
    ):
        assert from_json(edit.to_json()) == edit
