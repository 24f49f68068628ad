"""A model of one's own: the worked example of docs/models.md is registered, proved and traced."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import interp
from interp.experiments.grid import tabulate
from interp.models import families
from interp.testing import FamilyTests, check_anatomy, untraced
from interp.testing.block_records import swapped_chunks
from interp.tracing.prepare import prepare

MODELS: dict[str, interp.Model] = {}
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def own_model() -> Any:
    """The worked example of docs/models.md, executed as it stands there."""
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    (code,) = [part for part in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class MyDiT" in part]
    anatomies, pipelines = dict(families.ANATOMIES), dict(families.PIPELINES)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "docs/models.md", "exec"), names)
    MODELS["own"] = names["model"]
    yield names["model"]
    for known, before in ((families.ANATOMIES, anatomies), (families.PIPELINES, pipelines)):
        known.clear()
        known.update(before)


def test_a_model_of_ones_own_is_proved_and_traced(own_model: interp.Model, tmp_path: Path) -> None:
    prompts = ["a cat", "a red dog"]
    assert [check.name for check in check_anatomy(own_model, prompts) if not check.passed] == []
    run_of_it = interp.trace(own_model, prompts, out=tmp_path / "run.zarr", steps=3, batch_size=2)
    np.testing.assert_array_equal(run_of_it.images["image"], untraced(own_model, prepare(own_model, prompts, steps=3)))
    assert run_of_it.gates["alpha"].sizes["block"] == 2
    table = tabulate(own_model, prompts, [0, 1], timesteps=[200.0, 800.0])
    assert float(table["share"].sum("term").min()) == pytest.approx(1.0)


class TestOwnModel(FamilyTests):
    """The laws of `FamilyTests` on a class that the package does not know."""

    name = "own"
    decodes = own_guidance = guidable = unconditional = False

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, own_model: interp.Model) -> interp.Model:
        return own_model

    def load(self, folder: Path) -> interp.Model:
        return MODELS["own"]

    def arguments(self, pipe: Any, prompts: list[str], settings: Any, scale: float) -> dict[str, Any]:
        return {"prompt": prompts}

    def hooks(self, transformer: Any, seen: Any) -> None:
        for index, block in enumerate(transformer.blocks):
            seen.states_after(block, index)
            seen.gates_after(block.modulate, index, ["image"], {"attn": 0, "mlp": 3}, chunks=6)


def test_a_wrong_anatomy_of_ones_own_fails_its_check(own_model: interp.Model) -> None:
    wrong = swapped_chunks(own_model.anatomy, "alpha.attn", "alpha.mlp")
    checks = check_anatomy(interp.Model(dataclasses.replace(own_model.loaded, anatomy=wrong)), ["a cat", "a red dog"])
    assert not {check.name: check for check in checks}["residual identity"].passed
