"""A pipeline that its owner changes between traces: each trace records the pipeline as it is, and leaves it as it was.

Every family: LoRAs on all linear layers of the blocks (AdaLN projections too), another transformer, copies. States and gates
are compared with plain hooks on the same pipeline, bit for bit.
"""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FAMILIES, every_family, family_of
from messages import refused
from torch import nn

import interp
from interp.testing.family import built, generators
from interp.testing.reference import hooked

STEPS, SEED = 2, 3
pytestmark = pytest.mark.filterwarnings("ignore::interp.InterpWarning")


@pytest.fixture(params=every_family())
def family(request: pytest.FixtureRequest) -> Any:
    return family_of(request.param)


@pytest.fixture
def model(family: Any, tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """The family's model, loaded for one test alone."""
    found: interp.Model = built(tmp_path_factory, family.name, FAMILIES[family.name].load)
    return found


def drawn(family: Any, model: interp.Model, pipe: Any = None) -> Any:
    """A picture of the pipeline itself, or of a copy."""
    more = {"num_inference_steps": STEPS, "generator": generators(1, SEED), "output_type": "np", **family.given_size(model)}
    return family.draw(pipe or model.pipe, family.prompts[:1], model.settings(), 1.0, **more)


def copied(pipe: Any) -> Any:
    """The pipeline with a copy of its transformer: torch cannot copy weight-normalised parts, such as a sound's autoencoder."""
    other = copy.copy(pipe)
    other.transformer = copy.deepcopy(pipe.transformer)
    return other


def assert_traced_as_it_is(family: Any, model: interp.Model, out: Path) -> None:
    """A trace keeps what plain hooks on the same pipeline keep, and draws its picture."""
    kept = interp.Record(hidden=True, gates=bool(model.anatomy.gates))
    run = interp.trace(model, family.prompts[:1], out=out, steps=STEPS, seeds=[SEED], record=kept, **family.given_size(model))
    with hooked(model.pipe.transformer, family.hooks) as seen:
        output = drawn(family, model)
    np.testing.assert_array_equal(run.images["image"], family.pictures(output))
    assert len(seen.hidden) == int(run.stats["present"].sum())
    for stream, block in seen.hidden:
        np.testing.assert_array_equal(run.hidden[stream]["hidden"].sel(block=block), seen.states(stream, block))
    assert not seen.alpha or len(seen.alpha) == int(run.gates["present"].sum())
    for stream, gate, block in seen.alpha:
        alpha = run.of_stream("gates", stream)["alpha"].sel(gate=gate, block=block)
        np.testing.assert_array_equal(alpha, seen.gates(stream, gate, block))


def add_lora(model: interp.Model) -> None:
    """Adapters on every linear layer of the blocks."""
    import peft

    transformer = model.pipe.transformer
    paths = [block.path for block in model.anatomy.blocks]
    names = [
        name
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and any(name.startswith(f"{path}.") for path in paths)
    ]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        pattern = "|".join(map(re.escape, names))
        config = peft.LoraConfig(r=2, target_modules=f"^({pattern})$", init_lora_weights=False)
        peft.inject_adapter_in_model(config, transformer, "a")


def another_transformer(model: interp.Model) -> None:
    """One of the same class with other weights."""
    pipe = model.pipe
    with torch.random.fork_rng():
        torch.manual_seed(7)
        pipe.transformer = type(pipe.transformer).from_config(pipe.transformer.config).eval()


def in_double(model: interp.Model) -> None:
    model.pipe.to(torch.float64)


CHANGES: dict[str, Callable[[interp.Model], None]] = {"LoRA": add_lora, "another transformer": another_transformer}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_pipeline_is_traced_as_it_is(change: str, family: Any, model: interp.Model, tmp_path: Path) -> None:
    assert_traced_as_it_is(family, model, tmp_path / "before.zarr")
    CHANGES[change](model)
    assert_traced_as_it_is(family, model, tmp_path / "after.zarr")


def test_a_pipeline_is_left_as_it_was(family: Any, model: interp.Model, tmp_path: Path) -> None:
    """Forwards, hooks, copies, pickles and pictures."""
    transformer = model.pipe.transformer
    picture = drawn(family, model)
    fresh = drawn(family, model, copied(model.pipe))
    before = {name: (set(vars(module)), module.forward) for name, module in transformer.named_modules()}
    hooks = {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in transformer.named_modules()}
    given: dict[str, Any] = {"steps": STEPS, "seed": SEED, **family.given_size(model)}
    interp.trace(model, family.prompts[:1], out=tmp_path / "run.zarr", **given)
    interp.generate(model, family.prompts[:1], interventions=[interp.interventions.Zero(channels=[1], blocks=[0])], **given)
    assert {name: (set(vars(module)), module.forward) for name, module in transformer.named_modules()} == before
    assert {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in transformer.named_modules()} == hooks
    pickle.dumps(transformer)
    other = copied(model.pipe)
    np.testing.assert_array_equal(family.pictures(drawn(family, model)), family.pictures(picture))
    np.testing.assert_array_equal(
        family.pictures(drawn(family, model, other)), family.pictures(fresh)
    )  # rounding of another memory
    with torch.no_grad():
        for parameter in other.transformer.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(family.pictures(drawn(family, model)), family.pictures(picture))
    assert not np.array_equal(family.pictures(drawn(family, model, other)), family.pictures(picture)), "the copy is its own"


def test_edits_of_alpha_follow_a_lora(sd3_copy: interp.Model) -> None:
    """An edit of a gate records what the model uses: with the adapters in it."""
    add_lora(sd3_copy)
    family = family_of("tiny_model")
    zero = interp.interventions.Scale(0.0, channels=None, blocks=[0], at="alpha.attn")
    _, cache = sd3_copy.run_with_cache(family.prompts[0], "*/alpha.attn", steps=STEPS, interventions=[zero])
    assert not cache["alpha.attn", 0].any()
    with hooked(sd3_copy.pipe.transformer, family.hooks) as seen, interp.interventions.edited(sd3_copy, [zero]):
        drawn(family, sd3_copy)
    assert not seen.gates("image", "attn", 0).any() or seen.gates("image", "attn", 0).shape


@pytest.fixture
def sd3_copy(tiny_folder: Path) -> interp.Model:
    return interp.load(tiny_folder)


def test_more_blocks_before_the_first_trace(sd3_copy: interp.Model, tmp_path: Path) -> None:
    """A transformer of six blocks put into a pipeline of four after it was loaded."""
    config = dict(sd3_copy.pipe.transformer.config)
    sd3_copy.pipe.transformer = type(sd3_copy.pipe.transformer).from_config({**config, "num_layers": 6}).eval()
    assert_traced_as_it_is(family_of("tiny_model"), sd3_copy, tmp_path / "run.zarr")
    assert len(sd3_copy.anatomy.blocks) == 6


def test_a_dtype_changed_after_loading_is_in_the_plan(sd3_copy: interp.Model, tmp_path: Path) -> None:
    sd3_copy.pipe.to(torch.float64)
    run = interp.trace(sd3_copy, ["a red cat"], out=tmp_path / "run.zarr", steps=1)
    assert run.plan["dtype"] == "float64"


def test_a_compiled_or_cached_transformer_is_refused(sd3_copy: interp.Model, tmp_path: Path) -> None:
    interp.trace(sd3_copy, ["a red cat"], out=tmp_path / "run.zarr", steps=1)
    sd3_copy.pipe.transformer.compile()
    with refused(interp.ModelError, "compiled", "torch.compile"):
        interp.trace(sd3_copy, ["a red cat", "two dog"], out=tmp_path / "run.zarr", steps=1)


def test_an_envoy_of_ones_own_follows_the_modules(sd3_copy: interp.Model) -> None:
    first = sd3_copy.nn
    assert sd3_copy.nn is first
    another_transformer(sd3_copy)
    assert sd3_copy.nn is not first
    sd3_copy.release()
    assert "forward" not in vars(sd3_copy.pipe.transformer)
    pickle.dumps(sd3_copy.pipe.transformer)
