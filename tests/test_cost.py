"""What a trace does beside the model, in counts, which are not noisy: operations and bytes read per state, and calls that wait
for the device. Times are in tests/benchmarks/.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
import torch
from conftest import prompts_for
from torch.utils._python_dispatch import TorchDispatchMode

from interp.base.plan import Record
from interp.base.site_recorder import SiteRecorder
from interp.base.sites import Select
from interp.runs.recorded import make_recorders, make_schema
from interp.testing import untraced
from interp.tracing.group import trace_group
from interp.tracing.prepare import prepare
from interp.tracing.statistics import row_sums, sample_magnitudes, token_mean, token_statistics

WAITING = ("cpu", "numpy", "item", "tolist", "__bool__", "__float__", "__int__", "__array__")
WAITING_OPERATIONS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique")


class Counting(TorchDispatchMode):
    """Counts operations, and the bytes that they read of one tensor."""

    def __init__(self, of: torch.Tensor | None = None) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.read, self.place = 0, None if of is None else of.untyped_storage().data_ptr()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not any(one.alias_info is not None and not one.alias_info.is_write for one in operation._schema.returns):  # a view
            of_generators = bool(args) and isinstance(args[0], torch.Tensor) and args[0].dtype is torch.uint8  # on the host
            self.operations[operation.overloadpacket.__name__] += not of_generators
            given = [one for one in args if isinstance(one, torch.Tensor) and one.device.type == "cpu"]
            own = [one for one in given if one.untyped_storage().data_ptr() == self.place]
            self.read += sum(one.numel() * one.element_size() for one in own)
        return operation(*args, **(kwargs or {}))


@contextlib.contextmanager
def counted_waits() -> Iterator[Counter[str]]:
    """Calls of methods that bring a tensor's values to Python."""
    found: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        for name in WAITING:
            original = getattr(torch.Tensor, name)

            def method(self: Any, *args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
                found[_name] += 1
                return _original(self, *args, **kwargs)

            stack.enter_context(patch.object(torch.Tensor, name, method))
        yield found


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
    from triton.runtime import interpreter

    from interp.tracing import kernel

    builder, loaded = interpreter.interpreter_builder, [0]
    original = builder.create_masked_load

    def load(pointers: Any, mask: Any, *rest: Any) -> Any:
        loaded[0] += int(mask.data.sum()) * (pointers.get_element_ty().primitive_bitwidth // 8)
        return original(pointers, mask, *rest)

    monkeypatch.setattr(builder, "create_masked_load", load)
    monkeypatch.setattr(kernel, "PROGRAMS", kernel.PROGRAMS * 64 // 3072)  # as many parts as of 3072 channels
    state = torch.randn(1, 4096, 64).to(dtype)
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
    """A longer trace brings no more values to Python than a longer plain run does."""
    model = request.getfixturevalue(name)

    def waits(steps: int) -> tuple[Counter[str], Counter[str]]:
        prepared = prepare(model, prompts_for(name)[:2], steps=steps, record=RECORDS[record])
        rows, inside = prepared.plan.rows(), Counter[str]()
        recorders = make_recorders(prepared, make_schema(prepared), rows, lambda *state: None)
        untraced(model, prepared)

        def on_step(step: int) -> None:  # until the last step: afterwards values are read
            inside.clear()
            inside.update(seen)

        with counted_waits() as seen, Counting() as counting:
            trace_group(prepared, rows, recorders, on_step)
        traced = inside + Counter({n: c for n, c in counting.operations.items() if n in WAITING_OPERATIONS})
        with counted_waits() as seen, Counting() as counting:
            untraced(model, prepared)
        return traced, seen + Counter({n: c for n, c in counting.operations.items() if n in WAITING_OPERATIONS})

    (short, plain_short), (long, plain_long) = waits(2), waits(4)
    for kind in {*long, *plain_long}:
        own = (long[kind] - short[kind]) - (plain_long[kind] - plain_short[kind])
        assert own <= 0, f"{kind}: {own} in two steps"


@pytest.mark.parametrize(("name", "most"), [("tiny_model", 6.0), ("flux_model", 6.0)])
def test_operations_of_a_step(name: str, most: float, request: pytest.FixtureRequest) -> None:
    """Few operations per state and gate, since each costs the host the same time whatever it reads."""
    model = request.getfixturevalue(name)

    def operations(steps: int, traced: bool) -> int:
        prepared = prepare(model, prompts_for(name)[:1], steps=steps)
        rows = prepared.plan.rows()
        recorders = make_recorders(prepared, make_schema(prepared), rows, lambda *state: None)
        with Counting() as counting:
            trace_group(prepared, rows, recorders) if traced else untraced(model, prepared)
        return sum(counting.operations.values())

    step = {traced: (operations(6, traced) - operations(2, traced)) / 4 for traced in (True, False)}
    sites = sum(1 for site in model.anatomy.sites() if site.kind in ("hidden", "alpha"))
    assert 1 <= (step[True] - step[False]) / sites <= most, (step, sites)
