"""What a trace does beside the model, in counts, which are not noisy: operations and bytes read per state, and calls that wait
for the device. Times are in tests/benchmarks/.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
from conftest import prompts_for
from counting import Counting, added_a_step, counted_loads, operations, waits

import interp
from interp.base.plan import Record
from interp.base.site_recorder import SiteRecorder
from interp.base.sites import Select
from interp.interventions import Scale
from interp.tracing import steps
from interp.tracing.prepare import Prepared, prepare
from interp.tracing.statistics import row_sums, sample_magnitudes, token_mean, token_statistics


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("reduce", "most"), [(token_statistics, 1.0), (sample_magnitudes, 0.02), (token_mean, 1.0), (row_sums, 1.0)]
)
def test_a_state_is_read_once_in_torch(reduce: Callable[[torch.Tensor], Any], most: float, dtype: torch.dtype) -> None:
    state = torch.randn(1, 4096, 96).to(dtype)
    with Counting(state) as counting:
        reduce(state)
    assert counting.read <= most * state.nbytes


@pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter counts")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_is_read_once_by_the_kernel(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from interp.tracing import kernel

    monkeypatch.setattr(kernel, "PROGRAMS", kernel.PROGRAMS * 64 // 3072)  # as many parts as of 3072 channels
    state = torch.randn(1, 4096, 64).to(dtype)
    with counted_loads() as loaded:
        kernel.token_statistics(state)
    assert state.nbytes <= loaded[0] <= 1.1 * state.nbytes


RECORDS = {
    "statistics and gates": Record(),
    "everything": Record(
        branches=True,
        modulation=True,
        prediction=True,
        latents="all",
        hidden=Select(blocks=(0,), tokens=(0, 1)),
        recorders=(SiteRecorder("norm", "block.*/image/hidden", lambda site, step, x: x.norm(dim=(1, 2)), axes={}),),
    ),
}


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("name", ["tiny_model", "flux_model"])
def test_no_step_waits_for_the_device(name: str, record: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    found = added_a_step(waits, lambda steps: prepare(model, prompts_for(name)[:2], steps=steps, record=RECORDS[record]))
    assert {kind: count for kind, count in found.items() if count > 0} == {}


def test_a_step_that_waits_is_counted(tiny_model: interp.Model) -> None:
    waiting = SiteRecorder("sum", "block.0/image/hidden", lambda site, step, x: x.new_full((len(x),), x.sum().item()), axes={})
    record = Record(recorders=(waiting,))
    found = added_a_step(waits, lambda steps: prepare(tiny_model, ["a red cat"], steps=steps, record=record))
    assert found["item"] == 1


@pytest.mark.parametrize("name", ["tiny_model", "flux_model"])
def test_operations_of_a_step(name: str, request: pytest.FixtureRequest) -> None:
    """Few per state and gate: on small states each costs the host the same time, whatever it reads."""
    model = request.getfixturevalue(name)

    def make(steps: int, **edits: Any) -> Prepared:
        return prepare(model, prompts_for(name)[:1], steps=steps, **edits)

    sites = sum(1 for site in model.anatomy.sites() if site.kind in ("hidden", "alpha"))
    assert 1 <= sum(added_a_step(operations, make).values()) / sites <= 6
    edit = [Scale(channels=[1], blocks=0, factor=1.1)]
    assert sum(added_a_step(operations, lambda steps: make(steps, interventions=edit)).values()) / sites <= 7


@pytest.mark.parametrize("record", RECORDS)
def test_a_buffer_that_is_moved_often_gives_the_same(
    record: str, tiny_model: interp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a card that holds two steps and a half."""
    given: dict[str, Any] = {"steps": 5, "record": RECORDS[record], "batch_size": 2}
    whole = interp.trace(tiny_model, prompts_for("tiny_model")[:3], out=tmp_path / "whole.zarr", **given)
    size = 2.5 * sum(1 for site in tiny_model.anatomy.sites() if site.kind == "hidden") * 5 * tiny_model.anatomy.channels * 4
    monkeypatch.setattr(steps, "CHUNK", int(size))
    monkeypatch.setattr(steps, "STAYS", ())
    moved = interp.trace(tiny_model, prompts_for("tiny_model")[:3], out=tmp_path / "moved.zarr", **given)
    for group in ("/stats", "/gates", "/outputs"):
        xr.testing.assert_identical(moved.data[group].to_dataset(), whole.data[group].to_dataset())
