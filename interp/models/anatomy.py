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
from interp.models.places import (
    Inputs,
    Lengths,
    Modulation,
    Norm,
    Reentry,
    Tap,
    add_rows,
    cut,
    given_chunks,
    in_place_of,
    take_rows,
)
from interp.sites import GATES, STREAMS, Site

if TYPE_CHECKING:  # families are data: listing them loads no torch
    from torch import Tensor, nn


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
    joint: tuple[str, ...] = ()
    """Streams whose tokens stand one after the other in one state, where the block takes and gives such a one."""
    remakes: bool = False
    """Whether it begins by making a new state of its input and an earlier block's output (a long skip): what it adds to its
    input is then not the sum of its branches."""

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
            for number, stream, kind, gate in modulation.sites():
                yield modulation, number, Site(index, stream, kind, gate)

    def states_given(self, inputs: Inputs, lengths: Lengths) -> dict[str, Tensor]:
        """Each stream's state in the block's bound inputs: (batch, token, channel)."""
        return {stream: self._cut(inputs[argument], stream, lengths) for stream, argument in self.state_inputs.items()}

    def states(self, output: Any, lengths: Lengths) -> dict[str, Tensor]:
        """Each stream's state in the block's output: (batch, token, channel)."""
        items = output if isinstance(output, tuple) else (output,)
        return {stream: self._cut(items[item or 0], stream, lengths) for stream, item in self.hidden.items()}

    def with_states(self, output: Any, states: Mapping[str, Tensor]) -> Any:
        """The block's output with every stream's state put in its place."""
        items = list(output) if isinstance(output, tuple) else [output]
        for stream, item in self.hidden.items():
            items[item or 0] = states[stream]
        if self.joint:
            import torch

            items[0] = torch.cat([states[stream] for stream in self.joint], dim=1)
        return tuple(items) if isinstance(output, tuple) else items[0]

    def with_rows(self, output: Any, rows: Any) -> Any:
        """The block's output with other rows of its states."""
        items = list(output) if isinstance(output, tuple) else [output]
        for item in {item or 0 for item in self.hidden.values()}:
            items[item] = items[item][rows]
        return tuple(items) if isinstance(output, tuple) else items[0]

    def output_of(self, states: Mapping[str, Tensor]) -> Any:
        """An output of the block that holds these states."""
        if None in self.hidden.values():
            return self.with_states(None, states)
        return self.with_states((None,) * max(2, len(self.hidden)), states)

    def _cut(self, state: Tensor, stream: str, lengths: Lengths) -> Tensor:
        return cut(state, self.joint, stream, lengths) if self.joint else state


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """What sets the gates, and how to compute them without running a block."""

    players: Mapping[str, str]
    """What the gates depend on (`timestep`, `text`, `guidance`), each with the transformer's argument that carries it. A class
    label is `text`; where text is missing, it cannot enter the gates."""
    inputs: Callable[[nn.Module, Inputs], Inputs]
    """(transformer, its arguments that carry the players) -> the block inputs that every `Modulation.compute` needs."""
    further: tuple[str, ...] = ()
    """Further arguments that `inputs` is given: what a run holds fixed, such as the picture's size."""
    pooled: bool = True
    """Whether text enters by an argument of its own; where it enters by the text tokens, these are swapped with it."""
    of_block: Callable[[Inputs, int], Inputs] = lambda given, block: given
    """(what `inputs` gave, block) -> the block's own, where the transformer makes every block's at once."""


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """A transformer's blocks in execution order, and where conditioning enters."""

    family: str
    model_class: str
    channels: int
    blocks: tuple[Block, ...]
    row_inputs: tuple[str, ...]
    """Arguments of the transformer's forward that have a batch axis: the leading one, but for `row_axes`."""
    reentries: tuple[Reentry, ...]
    """Where conditioning enters again after the blocks."""
    row_axes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """By argument: the axis of the batch, where it is not the first."""
    timestep: str = "timestep"
    """The transformer's argument that carries it."""
    one_timestep: bool = True
    """Whether it is told no other timestep besides."""
    timestep_scale: float = 1.0
    """What the scheduler's timestep is divided by before it is given to the transformer."""
    guidance_scale: float = 1.0
    """What an embedded guidance is multiplied by before it is given to the transformer."""
    position: Callable[[nn.Module, tuple[int, int]], Tensor] | None = None
    """(transformer, image grid in tokens) -> the position embedding added to the image tokens, (token, channel)."""
    conditioning: Conditioning | None = None
    """What sets the gates; without it, `interp gates` is not available."""
    last_norm: Norm | None = None
    """The LayerNorm after the blocks, if it reads the image state."""
    lengths: Callable[[Inputs], Lengths] = lambda given: {"text": given["encoder_hidden_states"].shape[1]}
    """The transformer's arguments -> tokens of the streams beside the image's, where blocks hold streams in one state."""

    forks: bool = True
    """Whether rows can join the batch at a block: not where conditioning enters again outside of any module, nor where the
    transformer counts its rows before the blocks and uses the count after them, nor where a block is given an earlier one's
    output. Rows then join at the input."""

    @property
    def joint(self) -> bool:
        """Whether any block holds streams in one state."""
        return any(block.joint for block in self.blocks)

    def rows_first(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the transformer with the batch as every one's first axis, as all of this package has them."""
        return {
            name: value.movedim(self.row_axes[name], 0) if name in self.row_axes else value for name, value in given.items()
        }

    def as_called(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse: arguments as the transformer takes them."""
        return {name: value.movedim(0, self.row_axes[name]) if name in self.row_axes else value for name, value in rows.items()}

    @property
    def has_norms(self) -> bool:
        """Whether any block has a LayerNorm whose mean and variance an edit can hold."""
        return any(block.norms for block in self.blocks)

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

    @property
    def writers(self) -> tuple[str, ...]:
        """The gates, and the branches without one, that at least one block has."""
        found = {*self.gates, *(tap.gate for block in self.blocks for tap in block.branches)}
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


__all__ = [
    "Anatomy",
    "Block",
    "Conditioning",
    "Describe",
    "Inputs",
    "Lengths",
    "Modulation",
    "Norm",
    "Reentry",
    "Tap",
    "add_rows",
    "as_output",
    "bind_inputs",
    "cut",
    "describe",
    "given_chunks",
    "in_place_of",
    "take_rows",
]


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
