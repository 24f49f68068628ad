"""Sites: names of places in a model that can be read or edited, and the streams, gates and branches they refer to.

    block.7/image/hidden            the block's output residual stream                 (batch, token, channel)
    block.7/image/input             its input                                          likewise
    block.7/image/mid               the state between attention and MLP                likewise
    block.7/text/alpha.mlp          the AdaLN gate of the block's MLP branch            (batch, channel)
    block.7/image/shift.attn        AdaLN shift and scale                              likewise
    block.7/image/modulated.attn    input of a branch: (1 + scale) norm + shift        (batch, token, channel)
    block.7/image/branch.attn       output of a branch, before alpha multiplies it     likewise

Hidden states, alpha, shift and scale can be edited; the other sites are read-only.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Iterable, Sequence
from typing import Any

from interp.base.errors import InputError

GATES = ("attn", "attn2", "attn3", "mlp")
STATE_KINDS = ("input", "mid", "hidden")
MODULATION_KINDS = ("alpha", "shift", "scale")
GATED_KINDS = (*MODULATION_KINDS, "modulated", "branch")

_SITE = re.compile(r"block\.(\d+)/(\w+)/(\w+)(?:\.(\w+))?")
_WORD = re.compile(r"\w+")
_RANGE = re.compile(r"(-?\d{1,9})(?:-(-?\d{1,9}))?")
_LONGEST = 1_000_000  # indices in one range


@dataclasses.dataclass(frozen=True, order=True)
class Site:
    """One place in a model; `Site.parse` is the inverse of `str(site)`."""

    block: int
    """Global index over all blocks."""
    stream: str
    kind: str
    """`input`, `mid`, `hidden`; or `alpha`, `shift`, `scale`, `modulated`, `branch` of a gate."""
    gate: str | None = None

    def __post_init__(self) -> None:
        if not _WORD.fullmatch(self.stream):
            raise InputError(f"stream must be the name of a stream, one word; got {self.stream!r}")
        check_choice("kind", self.kind, (*STATE_KINDS, *GATED_KINDS))
        if (self.gate is not None) != (self.kind in GATED_KINDS):
            raise InputError(f"site: {self.kind!r} {'needs' if self.gate is None else 'has no'} gate; got {self.gate!r}")
        if self.gate is not None:
            check_choice("gate", self.gate, GATES)

    def __str__(self) -> str:
        place = self.kind if self.gate is None else f"{self.kind}.{self.gate}"
        return f"block.{self.block}/{self.stream}/{place}"

    @classmethod
    def parse(cls, text: str) -> Site:
        """Read a site's name, such as `block.7/text/alpha.mlp`."""
        found = _SITE.fullmatch(text)
        if found is None:
            raise InputError(f"site must have the form block.N/STREAM/hidden or block.N/STREAM/alpha.GATE; got {text!r}")
        return cls(int(found[1]), found[2], found[3], found[4])


@dataclasses.dataclass(frozen=True)
class Select:
    """A part of the hidden states. `None` means all; negative indices count from the end.

    Blocks, steps, tokens and channels are sequences of integers or texts such as "0,6,12-20".
    """

    blocks: tuple[int, ...] | None = None
    steps: tuple[int, ...] | None = None
    streams: tuple[str, ...] | None = None
    tokens: tuple[int, ...] | None = None
    """Positions within each selected stream."""
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for field in ("blocks", "steps", "tokens", "channels"):
            object.__setattr__(self, field, parse_indices(getattr(self, field), field))
        if self.streams is not None:
            streams = (self.streams,) if isinstance(self.streams, str) else tuple(dict.fromkeys(self.streams))
            for stream in streams:
                if not isinstance(stream, str) or not _WORD.fullmatch(stream):
                    raise InputError(f"streams must be names of streams, such as image or text; got {stream!r}")
            if not streams:
                raise InputError("streams must name at least one stream; got none")
            object.__setattr__(self, "streams", streams)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {key: list(value) if value is not None else None for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Select:
        """The inverse of `to_json`."""
        return cls(**values)


def parse_indices(value: Iterable[Any] | str | int | None, field: str) -> tuple[int, ...] | None:
    """Indices from a sequence, one integer, or a text such as "0,6,12-20" or "0,-1"; `None` stays `None` (all)."""
    if value is None:
        return None
    if isinstance(value, str):
        return _parse_text(value, field)
    given = list(value) if isinstance(value, Iterable) else [value]
    indices = [as_index(item) for item in given]
    if not indices or None in indices:
        raise InputError(f'{field} must be one or more integers, or a text such as "0,6,12-20"; got {value!r}')
    return tuple(index for index in indices if index is not None)


def as_index(value: Any) -> int | None:
    """Any integer (also numpy's) as an int; `None` for anything else, including booleans."""
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _parse_text(text: str, field: str) -> tuple[int, ...]:
    indices: list[int] = []
    for part in text.replace(" ", "").split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            raise InputError(f'{field} must have a form such as "0,6,12-20" or "0,-1"; got {text[:60]!r}')
        first = int(found[1])
        last = int(found[2]) if found[2] is not None else first
        if last < first:
            raise InputError(f"{field}: a range must be ascending; got {part!r} in {text!r}")
        if last - first > _LONGEST:
            raise InputError(f"{field}: a range must hold at most {_LONGEST} indices; got {part!r}")
        indices.extend(range(first, last + 1))
    return tuple(indices)


def resolve_indices(indices: Sequence[int] | None, size: int, field: str) -> tuple[int, ...]:
    """Selected indices as sorted positions in 0..size-1; `None` selects all."""
    if indices is None:
        return tuple(range(size))
    wrong = [i for i in indices if not -size <= i < size]
    if wrong:
        raise InputError(f"{field} must lie in {-size}..{size - 1} (there are {size}); got {wrong[0]}")
    return tuple(sorted({i % size for i in indices}))


def select_indices(value: Iterable[Any] | str | int | None, size: int, field: str) -> tuple[int, ...]:
    """`parse_indices`, then `resolve_indices`."""
    return resolve_indices(parse_indices(value, field), size, field)


def check_choice(field: str, value: str, allowed: Iterable[str]) -> None:
    """Raise InputError unless `value` is one of the allowed texts."""
    if value not in allowed:
        raise InputError(f"{field} must be one of {', '.join(allowed)}; got {value!r}")
