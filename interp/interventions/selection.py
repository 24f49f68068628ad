"""The selection of an edit: channels x blocks x stream x steps x tokens of a site."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from interp.base.errors import InputError
from interp.base.sites import GATES, MODULATION_KINDS, STREAMS, Site, parse_indices

Indices = Sequence[int] | str | int | None
PLACES = ("hidden", *(f"{kind}.{gate}" for kind in MODULATION_KINDS for gate in GATES))


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class Selection(ABC):
    """The selection of an edit. `None` means all; indices may be text, such as "0,6,12-20".

    `at` is `hidden` (a block's output) or a gate such as `alpha.mlp` (also `shift`, `scale`); `tokens` are positions within the
    stream. `stream` is image, text or both; a gate that two streams share (Flux's single blocks) is edited through `image`.
    """

    channels: Indices
    blocks: Indices
    stream: str = "image"
    steps: Indices = None
    tokens: Indices = None
    at: str = "hidden"
    positional: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for field in ("channels", "blocks", "steps", "tokens"):
            indices = parse_indices(getattr(self, field), field)
            if indices is not None and min(indices) < 0:
                raise InputError(f"{field} of an edit must be 0 or more (count from the front); got {min(indices)}")
            if indices is not None and len(set(indices)) != len(indices):
                raise InputError(f"{field} must each be given once; got {list(indices)}")
            object.__setattr__(self, field, indices)
        if self.stream not in (*STREAMS, "both"):
            raise InputError(f"stream must be image, text or both; got {self.stream!r}")
        if self.at not in PLACES:
            raise InputError(f"at must be hidden, or a gate such as alpha.mlp; got {self.at!r}")
        if self.tokens is not None and not self.is_hidden:
            raise InputError(f"tokens: {self.at} has no tokens; leave them out")

    @property
    def is_hidden(self) -> bool:
        """Whether it edits hidden states, not gates."""
        return self.at == "hidden"

    @abstractmethod
    def change(self, values: Tensor, step: int, block: int) -> Tensor:
        """The edited values of the selection: (batch, token, channel), or (batch, channel) of a gate."""

    def touches(self, site: Site, step: int) -> bool:
        """Whether this site is edited at this step."""
        here = site.kind if site.gate is None else f"{site.kind}.{site.gate}"
        return (
            here == self.at
            and self.stream in (site.stream, "both")
            and _among(site.block, self.blocks)
            and _among(step, self.steps)
        )

    def apply(self, site: Site, step: int, value: Tensor) -> Tensor:
        """The edited value; the input is unchanged."""
        channels = _places(self.channels, value.shape[-1], value)
        tokens = None if value.ndim == 2 else _places(self.tokens, value.shape[1], value)
        if channels is None and tokens is None:
            return self.change(value, step, site.block).clone()
        edited, place = value.clone(), _grid(channels, tokens, value)
        edited[place] = self.change(value[place], step, site.block)
        return edited

    def check(self, streams: Sequence[str], blocks: int, channels: int, steps: int, tokens: dict[str, int]) -> None:
        """Raise InputError for indices that the model or run does not have."""
        for field, size in (("channels", channels), ("blocks", blocks), ("steps", steps)):
            _within(field, getattr(self, field), size)
        wanted = [stream for stream in STREAMS if self.stream in (stream, "both")]
        if self.stream != "both" and self.stream not in streams:
            raise InputError(f"stream: this model has no {self.stream} stream; it has {', '.join(streams)}")
        for stream in (stream for stream in wanted if stream in streams):
            _within(f"tokens of the {stream} stream", self.tokens, tokens[stream])

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; arrays as their source and digest."""
        found: dict[str, Any] = {"edit": type(self).__name__}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and hasattr(value, "to_json"):
                value = value.to_json()
            found[field.name] = list(value) if isinstance(value, tuple) else value
        return found

    def __repr__(self) -> str:
        first = [repr(getattr(self, name)) for name in self.positional]
        rest = [
            f"{field.name}={_shown(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
            if field.name not in self.positional and (field.name in ("channels", "blocks") or not _is_default(self, field))
        ]
        return f"{type(self).__name__}({', '.join([*first, *rest])})"


def _is_default(edit: Selection, field: dataclasses.Field[Any]) -> bool:
    return bool(getattr(edit, field.name) == field.default)


def _shown(value: Any) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


def _among(index: int, wanted: Any) -> bool:
    return wanted is None or index in wanted


def _places(wanted: Any, size: int, value: Tensor) -> Tensor | None:
    """Selected indices as a tensor on the value's device; `None` for all."""
    return None if wanted is None else torch.tensor(wanted, device=value.device)


def _grid(channels: Tensor | None, tokens: Tensor | None, value: Tensor) -> tuple[Any, ...]:
    """An index of (batch, [token,] channel) whose result keeps all axes."""
    if value.ndim == 2:
        return (slice(None), channels)
    if channels is None or tokens is None:
        return (slice(None), slice(None) if tokens is None else tokens, slice(None) if channels is None else channels)
    return (slice(None), tokens[:, None], channels[None])


def _within(field: str, wanted: Any, size: int) -> None:
    if wanted is not None and max(wanted) >= size:
        raise InputError(f"{field} must lie in 0..{size - 1}; got {max(wanted)}")
