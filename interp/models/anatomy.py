"""What a transformer looks like to this package: an `Anatomy`, plain data that a family's file describes.

    z[k+1] = z[k] + sum_j alpha[k, j] * D[k, j](z[k], t, c)         block k, branch j

An anatomy says, for each block: where its image and text states are in its output, which AdaLN projections (`Modulation`)
give alpha, shift and scale, and which branches alpha multiplies. What is not listed does not exist: absence is stated.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from interp.errors import ModelError
from interp.sites import GATES, STREAMS, Site

if TYPE_CHECKING:  # families are data: listing them loads no torch
    from torch import Tensor, nn

Inputs = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Modulation:
    """One AdaLN projection of a block: a module whose output, (batch, chunk * channel), holds gates, shifts and scales."""

    stream: str
    module: str
    """Path inside the block of the module that emits the chunks."""
    chunks: tuple[str, ...]
    """What each chunk is, in order: `alpha.attn`, `shift.mlp`, ..."""
    compute: Callable[[nn.Module, Inputs], Tensor]
    """The same output from the block and its bound inputs, without running the block. It calls modules and never reads
    `.weight`, which offloading, quantisation and LoRA replace."""
    shared_with: tuple[str, ...] = ()
    """Other streams that use the very same chunks: their sites show them, and are edited through `stream`'s."""


@dataclasses.dataclass(frozen=True)
class Tap:
    """A place in a block that can be read: what a module in it is given, or gives."""

    stream: str
    kind: str
    """`mid`, or `modulated` or `branch` of a gate."""
    gate: str | None
    module: str
    side: str = "output"
    """`output`, or `input`: the module's first argument."""
    item: int | None = None
    """Which item of that output, where it is a tuple."""
    joint: tuple[str, ...] = ()
    """Streams whose tokens stand one after the other in it, where it holds more than one."""


@dataclasses.dataclass(frozen=True)
class Norm:
    """A LayerNorm, without weights of its own, that reads a state."""

    module: str
    """Path inside the block, or inside the transformer for the one after the blocks."""
    streams: tuple[str, ...] = ("image",)
    """Whose tokens stand in it, one after the other."""


@dataclasses.dataclass(frozen=True)
class Block:
    """One block: where its states, gates and branches are."""

    path: str
    kind: str
    hidden: Mapping[str, int | None]
    """Per stream: which item of the block's output holds its state (`None`: the output itself)."""
    reads: tuple[Modulation | Tap, ...]
    """AdaLN projections and other places, in the order in which the block comes by them."""
    row_inputs: tuple[str, ...]
    """Arguments of the block's forward that have a leading batch axis."""
    state_inputs: Mapping[str, str]
    """Per stream: the argument that carries its state in."""
    norms: tuple[Norm, ...] = ()
    """The LayerNorms that read the states."""
    attention: tuple[str, str] | None = None
    """(the layer that gives image tokens' values, the layer that attention's result enters next), of the same shape."""

    @property
    def modulations(self) -> tuple[Modulation, ...]:
        """The block's AdaLN projections."""
        return tuple(read for read in self.reads if isinstance(read, Modulation))

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The other places that can be read."""
        return tuple(read for read in self.reads if isinstance(read, Tap))

    @property
    def branches(self) -> tuple[Tap, ...]:
        """What the gates multiply."""
        return tuple(tap for tap in self.taps if tap.kind == "branch")

    def chunk_sites(self, index: int) -> Iterator[tuple[Modulation, int, Site]]:
        """Every (modulation, chunk number, site) of the block, whose global index is `index`."""
        for modulation in self.modulations:
            for number, chunk in enumerate(modulation.chunks):
                kind, gate = chunk.split(".")
                for stream in (modulation.stream, *modulation.shared_with):
                    yield modulation, number, Site(index, stream, kind, gate)


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """What sets the gates, and how to compute them without running a block."""

    players: Mapping[str, str]
    """What the gates depend on (`timestep`, `text`, `guidance`), each with the transformer's argument that carries it. A class
    label is `text`; where text is missing, it cannot enter the gates."""
    inputs: Callable[[nn.Module, Inputs], Inputs]
    """(transformer, its arguments that carry the players) -> the block inputs that every `Modulation.compute` needs."""


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """A transformer's blocks in execution order, and where conditioning enters."""

    family: str
    model_class: str
    channels: int
    blocks: tuple[Block, ...]
    row_inputs: tuple[str, ...]
    """Arguments of the transformer's forward that have a leading batch axis."""
    reentries: tuple[tuple[str, str], ...]
    """Modules after the blocks that conditioning enters again, as (module path, argument)."""
    timestep_scale: float = 1.0
    """What the scheduler's timestep is divided by before it is given to the transformer."""
    position: Callable[[nn.Module, tuple[int, int]], Tensor] | None = None
    """(transformer, image grid in tokens) -> the position embedding added to the image tokens, (token, channel)."""
    conditioning: Conditioning | None = None
    """What sets the gates; without it, `interp gates` is not available."""
    last_norm: Norm | None = None
    """The LayerNorm after the blocks, if it reads the image state."""

    @functools.cached_property
    def streams(self) -> tuple[str, ...]:
        """The streams that at least one block has."""
        found = {stream for block in self.blocks for stream in block.hidden}
        return tuple(stream for stream in STREAMS if stream in found)

    @functools.cached_property
    def gates(self) -> tuple[str, ...]:
        """The gates that at least one block has."""
        found = {site.gate for site in self.sites() if site.kind == "alpha"}
        return tuple(gate for gate in GATES if gate in found)

    def sites(self) -> Iterator[Site]:
        """Every site of every block, in execution order of the blocks."""
        for index, block in enumerate(self.blocks):
            for stream in block.state_inputs:
                yield Site(index, stream, "input")
            for read in block.reads:
                if isinstance(read, Tap):
                    yield Site(index, read.stream, read.kind, read.gate)
                else:
                    yield from (site for owner, _, site in block.chunk_sites(index) if owner is read)
            for stream in block.hidden:
                yield Site(index, stream, "hidden")


def bind_inputs(block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A block's inputs by argument name, however they were passed."""
    signature = inspect.signature(type(block).forward)
    bound = signature.bind(block, *args, **kwargs)
    bound.apply_defaults()
    return {name: value for name, value in bound.arguments.items() if name != "self"}


def as_output(prediction: Tensor, return_dict: bool) -> Any:
    """A transformer's output around its prediction, as diffusers' pipelines expect it."""
    if not return_dict:
        return (prediction,)
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    return Transformer2DModelOutput(sample=prediction)


Describe = Callable[["nn.Module"], Anatomy]


def describe(transformer: nn.Module, registry: Mapping[str, Describe]) -> Anatomy:
    """The anatomy of a transformer by its class name; an unknown class is an error that says how to register one."""
    name = type(transformer).__name__
    if name not in registry:
        raise ModelError(
            f"transformer class {name} has no anatomy; supported: {', '.join(sorted(registry))}. To add it, write "
            f"describe(transformer) -> interp.Anatomy and call interp.register_anatomy({name!r}, describe)"
        )
    return registry[name](transformer)
