"""Counts of what runs beside a model: operations, bytes read of a tensor, and calls that bring a tensor's values to Python."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from interp.runs.recorded import make_recorders, make_schema
from interp.testing import untraced
from interp.tracing.group import trace_group
from interp.tracing.prepare import Prepared

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


@contextlib.contextmanager
def counted_loads() -> Iterator[list[int]]:
    """Bytes that kernels in Triton's interpreter load."""
    from triton.runtime import interpreter

    builder, loaded = interpreter.interpreter_builder, [0]
    original = builder.create_masked_load

    def load(pointers: Any, mask: Any, *rest: Any) -> Any:
        loaded[0] += int(mask.data.sum()) * (pointers.get_element_ty().primitive_bitwidth // 8)
        return original(pointers, mask, *rest)

    with patch.object(builder, "create_masked_load", load):
        yield loaded


def reduced(prepared: Prepared, on_step: Callable[[int], None] = lambda step: None) -> None:
    """A trace without its store."""
    rows = prepared.plan.rows()
    recorders = make_recorders(prepared, make_schema(prepared), rows, lambda *state: None)
    trace_group(prepared, rows, recorders, on_step)


def waits(prepared: Prepared, *, traced: bool) -> Counter[str]:
    """What a run waits for until its last step has ended: afterwards values are read."""
    inside: Counter[str] = Counter()

    def on_step(step: int) -> None:
        inside.clear()
        inside.update(seen)

    with counted_waits() as seen, Counting() as counting:
        reduced(prepared, on_step) if traced else untraced(prepared.model, prepared)
    found = {name: count for name, count in counting.operations.items() if name in WAITING_OPERATIONS}
    return (inside if traced else seen) + Counter(found)


def operations(prepared: Prepared, *, traced: bool) -> Counter[str]:
    """Operations of a run, views left out."""
    with Counting() as counting:
        reduced(prepared) if traced else untraced(prepared.model, prepared)
    return counting.operations


def added_a_step(count: Callable[..., Counter[str]], make: Callable[[int], Prepared]) -> dict[str, float]:
    """What a trace does more than a plain run in each step, by kind; `make` prepares a run of some steps."""
    few, many = make(2), make(4)
    count(few, traced=False)
    steps = {traced: (count(few, traced=traced), count(many, traced=traced)) for traced in (True, False)}
    kinds = {kind for counts in steps.values() for one in counts for kind in one}
    each = {traced: {kind: (many[kind] - few[kind]) / 2 for kind in kinds} for traced, (few, many) in steps.items()}
    return {kind: each[True][kind] - each[False][kind] for kind in kinds}
