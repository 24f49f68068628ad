"""Record a transformer's blocks with plain hooks, and compute the residual identity from the records."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from interp.base.sites import Site
from interp.models.anatomy import Anatomy, Block, Modulation, Tap, bind_inputs
from interp.testing.reference import Array

Record = dict[str, Any]


@contextlib.contextmanager
def recording(transformer: nn.Module, anatomy: Anatomy, *, branches: bool = False) -> Iterator[tuple[Record, list[Record]]]:
    """Inside a `with` block, record the first call of a transformer: its inputs by name, and each block's inputs by name, its
    output, and the output of every modulation, and with `branches` the outputs of every branch's module, in order.
    """
    call: Record = {}
    records: list[Record] = [{} for _ in anatomy.blocks]

    def on_input(module: nn.Module, args: Any, kwargs: Any, *, record: Record) -> None:
        record.setdefault("inputs", bind_inputs(module, args, kwargs))

    def on_output(module: nn.Module, args: Any, output: Any, *, record: Record, name: str = "output") -> None:
        record.setdefault(name, output)

    def on_branch(module: nn.Module, args: Any, output: Any, *, record: Record, name: str) -> None:
        record.setdefault(f"calls of {name}", []).append(output)

    with contextlib.ExitStack() as hooks:
        hooks.enter_context(transformer.register_forward_pre_hook(partial(on_input, record=call), with_kwargs=True))
        for block, record in zip(anatomy.blocks, records, strict=True):
            module = transformer.get_submodule(block.path)
            hooks.enter_context(module.register_forward_pre_hook(partial(on_input, record=record), with_kwargs=True))
            hooks.enter_context(module.register_forward_hook(partial(on_output, record=record)))
            keeps: list[tuple[Callable[..., None], set[str]]] = [(on_output, {m.module for m in block.modulations if m.module})]
            keeps += [(on_branch, {tap.module for tap in block.branches})] if branches else []
            for keep, names in keeps:
                for name in names:
                    hook = partial(keep, record=record, name=name)
                    hooks.enter_context(module.get_submodule(name).register_forward_hook(hook))
        yield call, records
    with torch.no_grad():
        for block, record in zip(anatomy.blocks, records, strict=True):
            for modulation in (one for one in block.modulations if one.module is None):
                record[modulation.name] = modulation.compute(transformer.get_submodule(block.path), record["inputs"])


def residual_error(
    anatomy: Anatomy,
    states: Callable[[int, str], tuple[Array, Array]],
    branch: Callable[[int, Tap], Array],
    rounding: float = 0.0,
) -> float:
    """Largest |z[k+1] - z[k] - sum_j alpha_j D_j| over blocks and streams, relative to the largest update there.

    `states` gives a stream's state before and after a block, `branch` alpha x branch. Blocks that build their own state are
    left out. The possible rounding error of the states, relative to them, is subtracted first: a massive channel's state is
    so much larger than its update that the difference keeps few of the update's digits.
    """
    errors = [0.0]
    for index, block in enumerate(anatomy.blocks):
        for stream in block.hidden if not block.remakes else ():
            before, after = states(index, stream)
            parts = [branch(index, tap) for tap in block.branches if tap.stream == stream]
            if any(part.shape != before.shape for part in (after, *parts)):
                return float("inf")
            update = after - before
            unexplained = np.abs(update - sum(parts)) - rounding * np.maximum(np.abs(before), np.abs(after))
            errors.append(max(unexplained.max(), 0.0) / max(np.abs(update).max(), 1e-30))
    return float(max(errors))


def error_of_records(anatomy: Anatomy, records: list[Record], lengths: Mapping[str, int]) -> float:
    """`residual_error` of what hooks recorded."""
    alpha = {
        site: modulation.split(record[modulation.name])[number]
        for index, (block, record) in enumerate(zip(anatomy.blocks, records, strict=True))
        for modulation, number, site in block.chunk_sites(index)
    }

    def states(index: int, stream: str) -> tuple[Array, Array]:
        block, record = anatomy.blocks[index], records[index]
        before = block.states_given(record["inputs"], lengths)
        after = block.states(record["output"], block.in_rows(record["inputs"], lengths))
        return before[stream].double().numpy(), after[stream].double().numpy()

    def branch(index: int, tap: Tap) -> Array:
        own = anatomy.blocks[index].in_rows(records[index]["inputs"], lengths)
        written = tap.take(records[index][f"calls of {tap.module}"][tap.turn or 0], own)
        gate = alpha[Site(index, tap.stream, "alpha", tap.gate)].unsqueeze(1) if tap.gated else 1.0
        found: Array = (gate * written).double().numpy()
        return found

    return residual_error(anatomy, states, branch)


def chunks_by_stream(block: Block) -> dict[str, set[str]]:
    """Names of the chunks of a block's projections, by each projection's stream."""
    return {m.stream: {c for one in block.modulations if one.stream == m.stream for c in one.chunks} for m in block.modulations}


def gate_pairs(anatomy: Anatomy) -> list[tuple[str, str]]:
    """Pairs of chunks that must not be exchanged: a gate that multiplies a branch, and another gate or the shift of the MLP."""
    found = set()
    for block in anatomy.blocks:
        multiplying = {f"alpha.{tap.gate}" for tap in block.branches if tap.gated}
        for chunks in chunks_by_stream(block).values():
            others = [chunk for chunk in chunks if chunk.startswith("alpha.") or chunk == "shift.mlp"]
            found |= {tuple(sorted((a, b))) for a in multiplying & chunks for b in others if a != b}
    return sorted((a, b) for a, b in found)


def swapped_chunks(anatomy: Anatomy, a: str, b: str) -> Anatomy:
    """The anatomy with two chunks exchanged in every block whose projections of one stream have both."""
    names = {a: b, b: a}

    def swapped(block: Block) -> Block:
        of = chunks_by_stream(block)
        reads = (
            dataclasses.replace(read, chunks=tuple(names.get(chunk, chunk) for chunk in read.chunks))
            if isinstance(read, Modulation) and {a, b} <= of[read.stream]
            else read
            for read in block.reads
        )
        return dataclasses.replace(block, reads=tuple(reads))

    return dataclasses.replace(anatomy, blocks=tuple(swapped(block) for block in anatomy.blocks))
