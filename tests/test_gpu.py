"""What needs a CUDA device: `make test-gpu`. Nothing here runs in the usual suite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FAMILIES, PROMPTS

import interp
from interp.testing import selfcheck

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore::interp.InterpWarning"),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [f"{name}_model" for name in FAMILIES])
def test_selfcheck_passes_on_the_card(name: str, dtype: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(name).name
    report = selfcheck(interp.load(source, device="cuda", dtype=dtype))
    assert [check for check in report.checks if not check.passed] == []


@pytest.mark.parametrize("offload", ["model", "sequential", "group"])
def test_offloaded_equals_plain_on_the_card(offload: str, tiny_folder: Path, tmp_path: Path) -> None:
    plain = interp.trace(interp.load(tiny_folder, device="cuda"), PROMPTS, out=tmp_path / "plain.zarr")
    moved = interp.trace(interp.load(tiny_folder, device="cuda", offload=offload), PROMPTS, out=tmp_path / "moved.zarr")
    np.testing.assert_array_equal(plain.images["image"], moved.images["image"])
    for name, values in plain.stats.data_vars.items():
        np.testing.assert_array_equal(values, moved.stats[name])


def test_the_card_agrees_with_the_processor(tiny_folder: Path, tmp_path: Path) -> None:
    runs = {
        device: interp.trace(interp.load(tiny_folder, device=device), PROMPTS, out=tmp_path / f"{device}.zarr")
        for device in ("cpu", "cuda")
    }
    for group in ("stats", "gates"):
        for name, values in getattr(runs["cpu"], group).data_vars.items():
            if "prompt" in values.dims:
                other = getattr(runs["cuda"], group)[name]
                np.testing.assert_allclose(other, values, rtol=1e-3, atol=1e-4)
