"""A reference picture's tokens behind the generated ones: what they change in an anatomy.

Edit pipelines call a text-to-image transformer with both, in one sequence. The blocks treat them alike, so every state, tap and
norm that holds the generated stream holds the reference behind it, and the gates of both are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeVar

from interp.base.streams import REFERENCE, Stream
from interp.models.anatomy import Anatomy, Block, Inputs, Modulation, Norm, Tap

Place = TypeVar("Place")


def with_reference(anatomy: Anatomy, tokens: Callable[[Inputs], int]) -> Anatomy:
    """The anatomy with a stream `reference` behind the generated one; `tokens` counts it in the transformer's arguments."""
    drawn = anatomy.generated
    return dataclasses.replace(
        anatomy,
        streams=(*anatomy.streams, Stream(REFERENCE, REFERENCE, drawn.width, drawn.axes)),
        blocks=tuple(_block(block, drawn.name) for block in anatomy.blocks),
        last_norm=None if anatomy.last_norm is None else _norm(anatomy.last_norm, drawn.name),
        lengths=lambda given: {**anatomy.lengths(given), REFERENCE: tokens(given)},
    )


def _block(block: Block, drawn: str) -> Block:
    return dataclasses.replace(
        block,
        hidden=_copied(block.hidden, drawn),
        state_inputs=_copied(block.state_inputs, drawn),
        reads=tuple(found for read in block.reads for found in _read(read, drawn)),
        norms=tuple(_norm(norm, drawn) for norm in block.norms),
        joint=_behind(block.joint, drawn),
    )


def _read(read: Modulation | Tap, drawn: str) -> tuple[Modulation | Tap, ...]:
    if isinstance(read, Modulation):
        owners = (read.stream, *read.shared_with)
        return (dataclasses.replace(read, shared_with=(*read.shared_with, REFERENCE)) if drawn in owners else read,)
    if read.stream != drawn:
        return (dataclasses.replace(read, joint=_behind(read.joint, drawn)),)
    held = dataclasses.replace(read, joint=_behind(read.joint or (drawn,), drawn))
    return held, dataclasses.replace(held, stream=REFERENCE)


def _norm(norm: Norm, drawn: str) -> Norm:
    return dataclasses.replace(norm, streams=_behind(norm.streams, drawn))


def _behind(streams: tuple[str, ...], drawn: str) -> tuple[str, ...]:
    """An order of streams with the reference behind the generated one, where it holds that."""
    return tuple(name for stream in streams for name in ((stream, REFERENCE) if stream == drawn else (stream,)))


def _copied(places: Mapping[str, Place], drawn: str) -> dict[str, Place]:
    """Places by stream, the reference's that of the generated stream."""
    return {name: places[stream] for stream in places for name in _behind((stream,), drawn)}
