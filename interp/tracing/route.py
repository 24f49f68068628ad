"""The places of a transformer's blocks that a trace may read or edit, in execution order."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator

from torch import nn

from interp.base.sites import Site
from interp.models.anatomy import Anatomy, Block, Modulation, Tap


@dataclasses.dataclass(frozen=True)
class Stop:
    """The sites to visit in one block, in execution order."""

    path: str
    module: nn.Module
    inputs: dict[str, Site]
    """By stream."""
    reads: list[tuple[str, Modulation | Tap, list[tuple[int, Site]]]]
    """(path of the module, modulation or tap, [(chunk number, site)])."""
    states: dict[str, Site]
    """By stream."""
    block: Block

    @property
    def sites(self) -> Iterator[Site]:
        """All of them."""
        yield from self.inputs.values()
        for _, _, sites in self.reads:
            yield from (site for _, site in sites)
        yield from self.states.values()


def route_of(anatomy: Anatomy, transformer: nn.Module) -> list[Stop]:
    """One stop per block."""
    return [_stop(index, block, transformer) for index, block in enumerate(anatomy.blocks)]


def _stop(index: int, block: Block, transformer: nn.Module) -> Stop:
    reads = []
    for read in block.reads:
        if isinstance(read, Tap):
            sites = [(0, Site(index, read.stream, read.kind, read.gate))]
        else:
            sites = [(number, site) for owner, number, site in block.chunk_sites(index) if owner is read]
        reads.append((f"{block.path}.{read.module}" if read.module else block.path, read, sites))
    inputs = {stream: Site(index, stream, "input") for stream in block.state_inputs}
    states = {stream: Site(index, stream, "hidden") for stream in block.hidden}
    return Stop(block.path, transformer.get_submodule(block.path), inputs, reads, states, block)


class Turns:
    """Counts a call's calls of modules that a block calls more than once."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, Tap]] = Counter()

    def begin_call(self) -> None:
        """Start again, for another call of the transformer."""
        self.counts.clear()

    def is_now(self, path: str, tap: Tap) -> bool:
        """Whether this call of the tap's module, in the block at `path`, is the one that the tap reads."""
        if tap.turn is None:
            return True
        self.counts[path, tap] += 1
        return self.counts[path, tap] == tap.turn + 1
