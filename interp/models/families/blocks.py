"""Blocks that several families share, as data. `numbered` places them: until then, a block's path is what follows its index."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from interp.base.streams import Stream
from interp.models.anatomy import Block, Inputs, Modulation, Norm, Tap
from interp.models.hook_points import REST, given_chunks
from interp.models.lazy import torch

ADALN_ZERO = ("shift.attn", "scale.attn", "alpha.attn", "shift.mlp", "scale.mlp", "alpha.mlp")
ADALN_SINGLE = ADALN_ZERO[:3]
ADALN_BOTH = (*ADALN_ZERO, *(f"text/{chunk}" for chunk in ADALN_ZERO))
STATES = {"image": "hidden_states", "text": "encoder_hidden_states"}
ROWS = ("hidden_states", "encoder_hidden_states", "temb")
TEXT_FIRST, IMAGE_FIRST = ("text", "image"), ("image", "text")
"""Order of the streams in a block's output, and of the tokens in a joint state."""
TWO_STREAM_NORMS = (
    Norm("norm1.norm"),
    Norm("norm1_context.norm", ("text",)),
    Norm("norm2"),
    Norm("norm2_context", ("text",)),
)


def image_stream(width: int) -> Stream:
    """The tokens of a picture."""
    return Stream("image", "generated", width, ("y", "x"))


def video_stream(width: int) -> Stream:
    """The tokens of a video, named as those of a picture."""
    return Stream("image", "generated", width, ("frame", "y", "x"))


def text_stream(width: int) -> Stream:
    """The tokens of a text."""
    return Stream("text", "conditioning", width)


def project(norm: str, block: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    """AdaLN projection of a block: linear(silu(temb)), (batch, chunk * channel)."""
    module: Any = block.get_submodule(norm)
    values: torch.Tensor = module.linear(module.silu(inputs["temb"]).to(inputs["hidden_states"].dtype))
    return values


def projected(stream: str, norm: str, chunks: tuple[str, ...] = ADALN_ZERO) -> Modulation:
    """AdaLN values that a norm's own linear layer projects from `temb`."""
    return Modulation(stream, f"{norm}.linear", chunks, partial(project, norm))


def called(stream: str, module: str, chunks: tuple[str, ...] = ADALN_ZERO) -> Modulation:
    """AdaLN values that one module computes from `temb`, (batch, chunk * channel)."""
    return Modulation(stream, module, chunks, lambda block, inputs: block.get_submodule(module)(inputs["temb"]))


def given(argument: str, chunks: tuple[str, ...] = ADALN_ZERO, stream: str = "image") -> Modulation:
    """AdaLN values that a block receives as an argument."""
    return Modulation(stream, None, chunks, partial(given_chunks, argument), argument=argument)


def tabled(
    argument: str,
    chunks: tuple[str, ...] = ADALN_ZERO,
    stream: str = "image",
    *,
    table: str = "scale_shift_table",
    first_row: int = 0,
    wide: bool = False,
) -> Modulation:
    """AdaLN values that a block receives as an argument and adds its table to, from a row on; `wide` adds in float32."""
    compute = partial(given_chunks, argument, table=table, first_row=first_row, wide=wide)
    return Modulation(stream, None, chunks, compute, argument=argument, table=table, first_row=first_row)


def embed_timestep(first: str, second: str, transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` from the timestep through two modules, as the transformer's forward; `hidden_states` gives only the dtype."""
    embedded = transformer.get_submodule(first)(inputs["timestep"]).to(transformer.dtype)
    return {"temb": transformer.get_submodule(second)(embedded), "hidden_states": torch.empty(0, dtype=transformer.dtype)}


def embed_cast_timestep(first: str, second: str, transformer: Any, inputs: Inputs, *, times: float = 1.0) -> Inputs:
    """The same where the transformer first casts the timestep to its own dtype and multiplies it."""
    return embed_timestep(first, second, transformer, {"timestep": inputs["timestep"].to(transformer.dtype) * times})


def mlp_taps(
    stream: str, norm: str, mlp: str, *, tap: Callable[..., Tap] = Tap, gated: bool = True, spatial: bool = False
) -> tuple[Tap, Tap, Tap]:
    """A stream's state before its MLP, and the MLP's input and output."""
    return (
        tap(stream, "mid", None, norm, "input"),
        tap(stream, "modulated", "mlp", mlp, "input", spatial=spatial),
        tap(stream, "branch", "mlp", mlp, gated=gated, spatial=spatial),
    )


NORM_PROJECTIONS = (
    projected("image", "norm1"),
    Tap("image", "modulated", "attn", "norm1", item=0),
    projected("text", "norm1_context"),
    Tap("text", "modulated", "attn", "norm1_context", item=0),
)
"""Each stream's first norm projects its AdaLN values and returns the modulated state."""
ATTENTION_INPUTS = (
    Tap("image", "modulated", "attn", "attn", "input"),
    Tap("text", "modulated", "attn", "attn", "input", argument="encoder_hidden_states"),
)
ATTENTION_OUTPUTS = (Tap("image", "branch", "attn", "attn", item=0), Tap("text", "branch", "attn", "attn", item=1))
MLPS = (*mlp_taps("image", "norm2", "ff"), *mlp_taps("text", "norm2_context", "ff_context"))
SINGLE_TAPS = (Tap("image", "modulated", "attn", "norm", item=0), Tap("image", "branch", "attn", "proj_out"))


def double_block(
    first: Sequence[Modulation | Tap] = NORM_PROJECTIONS,
    *,
    attention: Sequence[Tap] = ATTENTION_OUTPUTS,
    mlps: Sequence[Tap] = MLPS,
    kind: str = "double",
    order: Sequence[str] = TEXT_FIRST,
    rows: tuple[str, ...] = ROWS,
    norms: tuple[Norm, ...] = TWO_STREAM_NORMS,
) -> Block:
    """A block of two streams with joint attention, which returns both in this order."""
    return Block(
        path="",
        kind=kind,
        hidden={stream: item for item, stream in enumerate(order)},
        reads=(*first, *attention, *mlps),
        row_inputs=rows,
        state_inputs=STATES,
        norms=norms,
        attention=("attn.to_v", "attn.to_out.0"),
    )


def single_block(
    modulation: Modulation,
    taps: Sequence[Tap] = SINGLE_TAPS,
    *,
    rows: tuple[str, ...],
    order: tuple[str, ...] = TEXT_FIRST,
    norms: Sequence[str] = ("norm.norm",),
    joint: bool = True,
    followed: bool = False,
    path: str = "",
) -> Block:
    """A block that joins both streams, with the same gates. Each tap holds both, in this order.

    With `joint` it takes and returns one state; otherwise it takes and returns the two streams.
    """
    held = (*order, REST) if followed else order
    streams = [dataclasses.replace(tap, stream=stream, joint=held) for tap in taps for stream in STATES]
    return Block(
        path=path,
        kind="single",
        hidden={stream: None if joint else item for item, stream in enumerate(order)},
        reads=(dataclasses.replace(modulation, shared_with=("text",)), *streams),
        row_inputs=rows,
        state_inputs=dict.fromkeys(order, "hidden_states") if joint else STATES,
        norms=tuple(Norm(norm, order) for norm in norms),
        joint=order if joint else (),
        followed=followed,
    )


def cross_block(
    modulation: Modulation | None,
    *mlp: Tap,
    rows: tuple[str, ...],
    kind: str = "cross",
    norms: Sequence[str] = (),
    gated: bool = True,
    tap: Callable[..., Tap] = Tap,
    block: type[Block] = Block,
    stream: str = "image",
) -> Block:
    """A block of one stream: self-attention, cross-attention without a gate, and the MLP of these taps."""
    attention = (
        tap(stream, "modulated", "attn", "attn1", "input"),
        tap(stream, "branch", "attn", "attn1", gated=gated),
        tap(stream, "branch", "attn2", "attn2", gated=False),
    )
    return block(
        path="",
        kind=kind,
        hidden={stream: None},
        reads=(*(() if modulation is None else (modulation,)), *attention, *mlp),
        row_inputs=rows,
        state_inputs={stream: "hidden_states"},
        norms=tuple(Norm(norm, (stream,)) for norm in norms),
        attention=("attn1.to_v", "attn1.to_out.0"),
    )


def numbered(transformer: Any, **placed: Block) -> tuple[Block, ...]:
    """The blocks of the transformer's lists of modules, in order: the block of every module of each list."""
    return tuple(
        dataclasses.replace(block, path=f"{place}.{index}{block.path}")
        for place, block in placed.items()
        for index in range(len(transformer.get_submodule(place)))
    )
