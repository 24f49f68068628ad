"""Places in a block, as a family's file describes them, where conditioning enters, and the arguments of a call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from interp.base.errors import InputError, ModelError
from interp.models.lazy import torch

Inputs = Mapping[str, Any]
Lengths = Mapping[str, Any]
"""Tokens of each stream: a number, or one for each row where they differ (`Block.in_rows`)."""
REST = "rest"
"""In an order of streams: tokens of no stream, as many as the streams leave."""


@dataclasses.dataclass(frozen=True)
class Modulation:
    """One AdaLN projection of a block: (batch, chunk * channel) values that hold gates, shifts and scales.

    A module inside the block computes them, or the block receives them as an argument and may add its own table. An edited
    value is written where it was read: to the module's output, or to this block's argument.
    """

    stream: str
    module: str | None
    """Path inside the block of the module that emits the chunks; `None`: `argument` carries them."""
    chunks: tuple[str, ...]
    """What each chunk is, in order: `alpha.attn`, `shift.mlp`, ...; `text/alpha.attn` if not of `stream`."""
    compute: Callable[[torch.nn.Module, Inputs], torch.Tensor]
    """The same values from the block and its bound inputs, without running the block. It calls modules and never reads a
    linear layer's `.weight`, which offloading, quantisation and LoRA replace."""
    shared_with: tuple[str, ...] = ()
    """Other streams that use the same chunks. Their sites show them and are edited through `stream`'s sites."""
    argument: str | None = None
    """The argument of the block that carries them, where no module inside the block emits them."""
    table: str | None = None
    """The block's own parameter that it adds to the argument."""
    first_row: int = 0
    """The first of the parameter's rows that it adds, which are as many as the chunks."""
    tanh: bool = False
    """Whether tanh of the alpha chunk multiplies the branch."""

    @property
    def name(self) -> str:
        """The module, or the argument."""
        return self.module or f"argument {self.argument}"

    def split(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Each chunk, (batch, channel), as the block uses it."""
        parts = values.chunk(len(self.chunks), dim=-1)
        if not self.tanh:
            return list(parts)
        return [part.tanh() if self._is_tanh(number) else part for number, part in enumerate(parts)]

    def join(self, values: torch.Tensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The inverse of `split`; unchanged values keep their bits."""
        raw, joined = values.chunk(len(self.chunks), dim=-1), []
        for number, (before, after) in enumerate(zip(raw, parts, strict=True)):
            if self._is_tanh(number):
                if bool((after.abs() > 1).any()):
                    raise InputError("intervention: this model's alpha is a tanh; edited values must lie in -1..1")
                joined.append(torch.where(after == before.tanh(), before, after.atanh()))
            else:
                joined.append(after)
        return torch.cat(joined, dim=-1)

    def write(self, block: Any, inputs: Inputs, before: torch.Tensor, after: torch.Tensor) -> dict[str, Any]:
        """The block's inputs with an argument that makes the block use `after`, up to one rounding of the table."""
        assert self.argument is not None
        carried = inputs[self.argument]
        one = of_one_token(carried)
        if one is not carried and not bool((carried == one[:, None]).all()):
            raise ModelError(f"gates that differ from token to token cannot be edited: the block's {self.argument}")
        given = one.reshape(before.shape).to(before.dtype)
        wanted = after if self.table is None else after - getattr(block, self.table)[self.first_row :].reshape(1, -1)
        found = torch.where(after == before, given, wanted).reshape(one.shape)
        return {**inputs, self.argument: found if one is carried else found[:, None].expand_as(carried)}

    def _is_tanh(self, number: int) -> bool:
        return self.tanh and "alpha" in self.chunks[number]


def of_one_token(carried: torch.Tensor) -> torch.Tensor:
    """AdaLN values that a block receives, without the tokens of (batch, token, chunk, channel): all of a row have the same."""
    return carried[:, 0] if carried.ndim == 4 else carried


def given_chunks(
    argument: str, block: Any, inputs: Inputs, *, table: str | None = None, first_row: int = 0, wide: bool = False
) -> torch.Tensor:
    """A block's argument plus the block's own table: (batch, chunk * channel). `wide` adds in float32."""
    carried = of_one_token(inputs[argument])
    flat: torch.Tensor = carried.reshape(carried.shape[0], -1)
    if table is None:
        return flat
    own: torch.Tensor = getattr(block, table)[first_row:].reshape(1, -1)
    if own.shape[1] != flat.shape[1]:
        raise ModelError(f"gates of single tokens are not supported: the block's {argument} is {tuple(carried.shape)}")
    return own + (flat.float() if wide else flat)


@dataclasses.dataclass(frozen=True)
class Tap:
    """A place in a block that can be read: a module's input or output."""

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
    """Streams concatenated in it, in order, where it holds several."""
    gated: bool = True
    """Whether an alpha multiplies the branch; without one, alpha is 1."""
    argument: str | None = None
    """The module's argument by name, where it is not the first."""
    spatial: bool = False
    """Whether its channels come first, (batch, channel, y, x) or (batch, channel, token)."""
    turn: int | None = None
    """Which of the block's calls of the module, from 0, where the block calls it more than once."""

    def take(self, value: Any, lengths: Lengths) -> torch.Tensor:
        """The stream's tokens, (batch, token, channel), from the module's input or output."""
        if isinstance(value, tuple):
            value = value[self.item or 0]
        if self.spatial:
            value = value.flatten(2).transpose(1, 2)
        found: torch.Tensor = cut(value, self.joint, self.stream, lengths) if self.joint else value
        return found


@dataclasses.dataclass(frozen=True)
class Norm:
    """A LayerNorm without weights that reads a state."""

    module: str
    """Path inside the block, or inside the transformer for the one after the blocks."""
    streams: tuple[str, ...] = ("image",)
    """Streams concatenated in its input, in order."""


@dataclasses.dataclass(frozen=True)
class Reentry:
    """Where conditioning enters again after the blocks."""

    module: str
    """Path of a module inside the transformer."""
    argument: str | None = None
    """The module's argument that carries it, for a module after the blocks."""
    item: int | None = None
    """Otherwise: the item of this module's output, computed before the blocks, that is used after them."""


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """The gates' inputs, and how to compute the gates without running a block."""

    players: Mapping[str, str]
    """The gates' inputs (`timestep`, `text`, `guidance`), each with the transformer's argument that carries it. A class label
    is `text`. Without `text`, text does not enter the gates."""
    inputs: Callable[[torch.nn.Module, Inputs], Inputs]
    """(transformer, its arguments that carry the players) -> the block inputs that every `Modulation.compute` needs."""
    further: tuple[str, ...] = ()
    """Further arguments of `inputs`, which a run holds fixed, such as the picture's size."""
    pooled: bool = True
    """Whether text enters through its own argument. If it enters through the text tokens, these are swapped with it."""
    guidance_scale: float = 1.0
    """The transformer receives an embedded guidance multiplied by this."""
    of_block: Callable[[Inputs, int], Inputs] = lambda given, block: given
    """(output of `inputs`, block) -> the block's part, where the transformer computes all blocks' at once."""


def cut(value: torch.Tensor, order: Sequence[str], stream: str, lengths: Lengths) -> torch.Tensor:
    """One stream's tokens from concatenated streams; `REST`, or else one of unknown length, takes what the others leave.

    Where the streams before it have another number of tokens in each row, its tokens are gathered.
    """
    if any(isinstance(lengths.get(name), tuple) for name in order[: list(order).index(stream)]):
        index = places(order, stream, lengths, value.device)
        return value.gather(1, index[..., None].expand(-1, -1, value.shape[-1]))
    last = REST if REST in order else next((name for name in order if name not in lengths), order[-1])
    sizes = [lengths[name] if name != last else 0 for name in order]
    sizes[list(order).index(last)] = value.shape[1] - sum(sizes)
    found: torch.Tensor = torch.split(value, sizes, dim=1)[list(order).index(stream)]
    return found


def widened(values: torch.Tensor, channels: int) -> torch.Tensor:
    """(..., channel) with as many channels: NaN in those that a narrow stream lacks."""
    return torch.nn.functional.pad(values, (0, channels - values.shape[-1]), value=torch.nan)


def places(order: Sequence[str], stream: str, lengths: Lengths, device: torch.device) -> torch.Tensor:
    """Where the stream's tokens are in every row, (row, token); in one row if they are at the same place in all."""
    before = [torch.tensor(lengths[name], device=device).reshape(-1, 1) for name in order[: list(order).index(stream)]]
    return sum(before, torch.arange(lengths[stream], device=device)[None])
