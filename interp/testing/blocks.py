"""Record a transformer's blocks with plain hooks, and compute the residual identity from the records."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from interp.models.anatomy import Anatomy, Block, Modulation, bind_inputs

Record = dict[str, Any]


@torch.no_grad()
def block_records(transformer: nn.Module, anatomy: Anatomy, inputs: Mapping[str, Any]) -> list[Record]:
    """For each block: its inputs by name, its output, and the output of every module that the anatomy names."""
    records: list[Record] = [{} for _ in anatomy.blocks]
    handles = []

    def on_input(module: nn.Module, args: Any, kwargs: Any, *, record: Record) -> None:
        record["inputs"] = bind_inputs(module, args, kwargs)

    def on_output(module: nn.Module, args: Any, output: Any, *, record: Record, name: str = "output") -> None:
        record[name] = output

    for block, record in zip(anatomy.blocks, records, strict=True):
        module = transformer.get_submodule(block.path)
        handles.append(module.register_forward_pre_hook(partial(on_input, record=record), with_kwargs=True))
        handles.append(module.register_forward_hook(partial(on_output, record=record)))
        for name in {tap.module for tap in block.branches} | {one.module for one in block.modulations if one.module}:
            handles.append(module.get_submodule(name).register_forward_hook(partial(on_output, record=record, name=name)))
    transformer(**inputs)
    for handle in handles:
        handle.remove()
    for block, record in zip(anatomy.blocks, records, strict=True):
        for modulation in (one for one in block.modulations if one.module is None):
            record[modulation.name] = modulation.compute(transformer.get_submodule(block.path), record["inputs"])
    return records


def residual_error(anatomy: Anatomy, records: list[Record], lengths: Mapping[str, int]) -> float:
    """Largest |z[k+1] - z[k] - sum_j alpha_j D_j| over blocks and streams, relative to the largest update there."""
    errors = [0.0]
    for index, (block, record) in enumerate(zip(anatomy.blocks, records, strict=True)):
        if block.remakes:
            continue  # it adds to a state that it builds itself
        alpha = {}
        for modulation, number, site in block.chunk_sites(index):
            if site.kind == "alpha":
                alpha[site.stream, site.gate] = modulation.split(record[modulation.name])[number]
        before, after = block.states_given(record["inputs"], lengths), block.states(record["output"], lengths)
        for stream in block.hidden:
            change = after[stream] - before[stream]
            update = torch.zeros_like(change)
            for tap in (one for one in block.branches if one.stream == stream):
                gate = alpha[stream, tap.gate].unsqueeze(1) if tap.gated else 1.0
                update = update + gate * tap.take(record[tap.module], lengths)
            errors.append(((change - update).abs().max() / change.abs().max()).item())
    return max(errors)


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
