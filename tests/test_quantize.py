"""Quantised transformers load and trace; their gates are exact, or it is said that they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from messages import refused, warned
from torch import nn

import interp
from interp.base.errors import InputError, InterpWarning
from interp.models.quantize import EXACT, KINDS
from interp.testing.checks import selfcheck

pytestmark = pytest.mark.quantized
PROMPTS = ["a red cat", "two dog"]


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("name", ["tiny", "dual", "flux", "dit"])
def test_gates_are_exact_and_states_are_not(name: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source = request.getfixturevalue(f"{name}_model")
    prompts = PROMPTS if name != "dit" else ["1", "2"]
    plain = interp.trace(source, prompts, out=tmp_path / "plain.zarr", steps=2)
    model = interp.load(source.name, quantize=kind)
    found = model.loaded.quantization
    assert found is not None
    assert found["gates"] == EXACT
    assert sum(found["layers"].values()) > len(model.anatomy.blocks)
    run = interp.trace(model, prompts, out=tmp_path / "run.zarr", steps=2)
    first = {"step": 0}  # at later steps a model whose gates see nothing but t and text agrees as well
    assert np.array_equal(run.gates["alpha"].isel(first), plain.gates["alpha"].isel(first), equal_nan=True)
    assert not np.array_equal(run.stats["mean_abs"], plain.stats["mean_abs"], equal_nan=True), "it is quantised"
    near = {"int8": 0.1, "float8": 0.3, "nf4": 0.6}[kind]
    one, other = (r.stats["mean_abs"].isel(first).to_numpy() for r in (run, plain))
    assert np.nanmedian(np.abs(one - other) / (np.abs(other) + 1e-6)) < near
    assert "gates exact" in run.facts()["quantised"]
    assert run.plan["weights"] != plain.plan["weights"]
    assert "quantised" in repr(model)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_quantised_model_passes_the_self_check(kind: str, tiny_folder: Path) -> None:
    """Recorded values against plain hooks, and the picture against the untraced one."""
    report = selfcheck(interp.load(tiny_folder, quantize=kind))
    assert [check for check in report.checks if not check.passed] == []


def test_another_quantisation_is_another_run(tiny_folder: Path, tmp_path: Path) -> None:
    model = interp.load(tiny_folder, quantize="int8")
    interp.trace(model, PROMPTS, out=tmp_path / "r.zarr", steps=2)
    assert interp.trace(interp.load(tiny_folder, quantize="int8"), PROMPTS, out=tmp_path / "r.zarr", steps=2).rows_done == 2
    with refused(interp.PlanError, "weights", tmp_path / "r.zarr"):
        interp.trace(interp.load(tiny_folder), PROMPTS, out=tmp_path / "r.zarr", steps=2)


def test_a_pipeline_whose_projections_are_quantised_says_so(tiny_folder: Path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    pipe = interp.load(tiny_folder).pipe
    quantize_(pipe.transformer, Int8WeightOnlyConfig(), filter_fn=lambda module, name: name.endswith("norm1.linear"))
    with warned(InterpWarning, "quantised", "gates"):
        model = interp.wrap(pipe)
    assert model.loaded.quantization["gates"] != EXACT
    outside = interp.load(tiny_folder).pipe
    quantize_(outside.transformer, Int8WeightOnlyConfig(), filter_fn=lambda module, name: name == "proj_out")
    with warned(InterpWarning, "quantised", "gates"):
        interp.wrap(outside)


def test_what_is_quantised(tiny_folder: Path) -> None:
    model = interp.load(tiny_folder, quantize="int8")
    transformer = model.pipe.transformer
    plain = {name for name, m in transformer.named_modules() if isinstance(m, nn.Linear) and type(m.weight) is nn.Parameter}
    assert {name for name in plain if ".norm1" in name} == {
        n for n, _ in transformer.named_modules() if n.endswith(".linear")
    } - {"norm_out.linear"}
    assert {name for name in plain if name.startswith("transformer_blocks") and ".norm1" not in name} == set()
    assert interp.load(tiny_folder).loaded.quantization is None
    assert torch.get_float32_matmul_precision() == "highest", "torchao would change it for everyone"


def test_refusals(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(InputError, "quantize", "int8", "float8", "nf4", "int2"):
        interp.load(tiny_folder, quantize="int2")
    import importlib.util

    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "torchao" else original(name, *more))
    with refused(InputError, "torchao", "pip install 'interp[quantized]'"):
        interp.load(tiny_folder, quantize="int8")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", list(KINDS))
def test_on_a_card(kind: str, tiny_folder: Path, tmp_path: Path) -> None:
    model = interp.load(tiny_folder, quantize=kind, device="cuda", dtype="bfloat16")
    run = interp.trace(model, PROMPTS, out=tmp_path / "r.zarr", steps=2)
    assert run.rows_done == 2
    assert model.loaded.quantization["gates"] == EXACT
    torch.cuda.synchronize()
