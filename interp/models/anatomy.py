"""The anatomy of a transformer: an `Anatomy`, plain data that a family's file provides.

    z[k+1] = z[k] + sum_j alpha[k, j] * D[k, j](z[k], t, c)         block k, branch j

For each block, an anatomy lists where its output holds the states of its streams, which AdaLN projections (`Modulation`) give
alpha, shift and scale, and which branches alpha multiplies. A site that is not listed does not exist.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from interp.base.errors import ModelError
from interp.base.sites import GATES, Site
from interp.base.streams import GENERATED, Stream, find_stream
from interp.models.call_form import CallForm, Form, Timestep, add_rows, bind_inputs, in_place_of, take_rows
from interp.models.catalog import nearest
from interp.models.hook_points import REST, Conditioning, Inputs, Lengths, Modulation, Norm, Reentry, Tap, cut
from interp.models.lazy import torch


@dataclasses.dataclass(frozen=True)
class Block:
    """One block: where its states, gates and branches are."""

    path: str
    kind: str
    hidden: Mapping[str, int | None]
    """Per stream: which item of the block's output holds its state (`None`: the output itself)."""
    reads: tuple[Modulation | Tap, ...]
    """AdaLN projections and taps, in execution order."""
    row_inputs: tuple[str, ...]
    """Arguments of the block's forward that have a leading batch axis."""
    state_inputs: Mapping[str, str]
    """Per stream: the argument that carries its state in."""
    norms: tuple[Norm, ...] = ()
    """The LayerNorms that read the states."""
    attention: tuple[str, str] | None = None
    """(the image tokens' value projection, the next layer after attention), of the same shape."""
    joint: tuple[str, ...] = ()
    """Streams concatenated in one state, in order, where the block takes and returns such a state."""
    followed: bool = False
    """Whether tokens of no stream follow those of the streams. Edits leave them unchanged."""
    remakes: bool = False
    """Whether it first makes a new state from its input and an earlier block's output (a long skip). What it adds to its input
    is then not the sum of its branches."""

    @property
    def is_joint(self) -> bool:
        """Whether several streams enter it, and so its attention."""
        return len(self.state_inputs) > 1 or bool(self.joint)

    def together(self, stream: str) -> tuple[str, ...]:
        """The streams of the state that holds this one, in order."""
        shared = self.state_inputs[stream]
        return self.joint or tuple(name for name, argument in self.state_inputs.items() if argument == shared)

    @property
    def mixed(self) -> bool:
        """Whether one of its states holds several streams, or one and tokens of none."""
        return bool(self.joint) or any(len(self.together(stream)) > 1 for stream in self.state_inputs)

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
        """The taps that the gates multiply."""
        return tuple(tap for tap in self.taps if tap.kind == "branch")

    def chunk_sites(self, index: int) -> Iterator[tuple[Modulation, int, Site]]:
        """Every (modulation, chunk number, site) of the block at global index `index`; a chunk's own stream before those that
        share it, unless the chunk names its stream.
        """
        for modulation in self.modulations:
            for number, chunk in enumerate(modulation.chunks):
                stream, _, place = chunk.rpartition("/")
                kind, gate = place.split(".")
                for owner in (stream,) if stream else (modulation.stream, *modulation.shared_with):
                    yield modulation, number, Site(index, owner, kind, gate)

    def states_given(self, inputs: Inputs, lengths: Lengths) -> dict[str, torch.Tensor]:
        """Each stream's state in the block's bound inputs: (batch, token, channel)."""
        lengths = self.in_rows(inputs, lengths)
        return {stream: self._cut(inputs[argument], stream, lengths) for stream, argument in self.state_inputs.items()}

    def in_rows(self, inputs: Inputs, lengths: Lengths) -> Lengths:
        """The lengths, where each row of these bound inputs has its own."""
        return lengths

    def states(self, output: Any, lengths: Lengths) -> dict[str, torch.Tensor]:
        """Each stream's state in the block's output: (batch, token, channel)."""
        return {stream: self.state(output, stream, lengths) for stream in self.hidden}

    def state(self, output: Any, stream: str, lengths: Lengths) -> torch.Tensor:
        """One of them."""
        value = output[self.hidden[stream] or 0] if isinstance(output, tuple) else output
        return self._cut(value, stream, lengths)

    def with_states(self, output: Any, states: Mapping[str, torch.Tensor], lengths: Lengths) -> Any:
        """The block's output with every stream's state replaced."""
        items = list(output) if isinstance(output, tuple) else [output]
        for item in {item or 0 for item in self.hidden.values()}:
            here = self.joint or [stream for stream, place in self.hidden.items() if (place or 0) == item]
            parts = [states[stream] for stream in here]
            if self.followed and items[item] is not None:
                parts.append(items[item][:, sum(part.shape[1] for part in parts) :])
            items[item] = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        return tuple(items) if isinstance(output, tuple) else items[0]

    def with_rows(self, output: Any, rows: Any) -> Any:
        """The block's output with its states indexed by `rows`."""
        items = list(output) if isinstance(output, tuple) else [output]
        for item in {item or 0 for item in self.hidden.values()}:
            items[item] = items[item][rows]
        return tuple(items) if isinstance(output, tuple) else items[0]

    def output_of(self, states: Mapping[str, torch.Tensor], inputs: Inputs, lengths: Lengths) -> Any:
        """An output of the block that holds these states; `inputs` are its bound ones."""
        if None in self.hidden.values():
            return self.with_states(None, states, lengths)
        return self.with_states((None,) * max(2, 1 + max(item or 0 for item in self.hidden.values())), states, lengths)

    def _cut(self, state: torch.Tensor, stream: str, lengths: Lengths) -> torch.Tensor:
        order = (*self.together(stream), REST) if self.followed else self.together(stream)
        return cut(state, order, stream, lengths) if len(order) > 1 else state


TIMESTEP = Timestep()


@dataclasses.dataclass(frozen=True)
class Anatomy(CallForm):
    """A transformer's blocks in execution order, and where conditioning enters."""

    family: str
    model_class: str
    streams: tuple[Stream, ...]
    """The streams of its blocks. The first generated one is the stream that analyses and edits take by default."""
    blocks: tuple[Block, ...]
    row_inputs: tuple[str, ...]
    """Arguments of the transformer's forward that have a batch axis."""
    reentries: tuple[Reentry, ...]
    """Where conditioning enters again after the blocks."""
    forms: Mapping[str, Form] = dataclasses.field(default_factory=dict)
    """Per argument: how it holds its rows, where it is not a tensor with the batch axis first."""
    after_text: Callable[[Inputs], Inputs] = lambda given: {}
    """A call's arguments with another text -> those that follow from its length, where calls have one row."""
    timestep: Timestep = TIMESTEP
    position: Callable[[torch.nn.Module, tuple[int, int]], torch.Tensor] | None = None
    """(transformer, image grid in tokens) -> the position embedding added to the image tokens, (token, channel)."""
    conditioning: Conditioning | None = None
    """The gates' inputs; without it, `interp gates` is not available."""
    last_norm: Norm | None = None
    """The LayerNorm after the blocks, if it reads the image state."""
    lengths: Callable[[Inputs], Lengths] = lambda given: {"text": given["encoder_hidden_states"].shape[1]}
    """The transformer's arguments -> tokens of the streams except the image, where blocks hold streams in one state."""
    forks: bool = True
    """Whether rows can join the batch at a block; otherwise they join at the input. They cannot where conditioning enters again
    outside any module, where the transformer reads the batch size before the blocks and uses it after them, or where a block
    receives an earlier block's output."""

    @property
    def joint(self) -> bool:
        """Whether any block holds streams in one state."""
        return any(block.mixed for block in self.blocks)

    @property
    def has_norms(self) -> bool:
        """Whether any block has a LayerNorm whose mean and variance an edit can hold."""
        return any(block.norms for block in self.blocks)

    @functools.cached_property
    def stream_names(self) -> tuple[str, ...]:
        """The names of the streams, in order."""
        return tuple(stream.name for stream in self.streams)

    def stream(self, wanted: str) -> Stream:
        """The stream of a name or of a role."""
        return find_stream(self.streams, wanted)

    @functools.cached_property
    def generated(self) -> Stream:
        """The stream that the model draws; the first one, where it draws several."""
        return self.stream(GENERATED)

    @property
    def channels(self) -> int:
        """Channels of the generated stream."""
        return self.generated.width

    @functools.cached_property
    def gates(self) -> tuple[str, ...]:
        """The gates that at least one block has."""
        found = {site.gate for site in self.sites() if site.kind == "alpha"}
        return tuple(gate for gate in GATES if gate in found)

    @property
    def writers(self) -> tuple[str, ...]:
        """The gates, and the branches without a gate, that at least one block has."""
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


__all__ = ["Conditioning", "Form", "Inputs", "Lengths", "Modulation", "Norm", "Reentry", "Tap", "Timestep"]
__all__ += ["add_rows", "bind_inputs", "in_place_of", "take_rows"]


Describe = Callable[["torch.nn.Module"], Anatomy]


def describe(transformer: torch.nn.Module, registry: Mapping[str, Describe]) -> Anatomy:
    """The anatomy of a transformer by its class name; an unknown class is an error that names `register_anatomy`."""
    name = type(transformer).__name__
    if name not in registry:
        raise ModelError(
            f"transformer class {name} has no anatomy; {nearest(name, registry, 'interp models --support')}. To add it, write "
            f"describe(transformer) -> interp.Anatomy and call interp.register_anatomy({name!r}, describe)"
        )
    return registry[name](transformer)
