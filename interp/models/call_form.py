"""Calls of a transformer and of its blocks: how their arguments hold rows and timestep, and how this package holds them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from interp.base.errors import InputError
from interp.base.streams import REFERENCE, Stream
from interp.models.lazy import torch


@dataclasses.dataclass(frozen=True)
class Timestep:
    """The transformer's timestep."""

    name: str = "timestep"
    """Its argument."""
    scale: float = 1.0
    """The transformer receives the scheduler's timestep divided by this."""
    rises: bool = False
    """Whether it receives 1 minus that: 0 at pure noise, 1 at the picture."""
    alone: bool = True
    """Whether it takes no second timestep."""

    def given(self, scheduled: Any) -> Any:
        """What the transformer receives at the scheduler's timestep."""
        found = scheduled / self.scale
        return 1 - found if self.rises else found

    def agrees(self, given: Any, scheduled: float, rounding: float) -> bool:
        """Whether values of the argument are those of the scheduler's timestep, up to a relative rounding."""
        return np.allclose(given, self.given(scheduled), rtol=rounding, atol=1e-6 if self.rises else 1e-6 / self.scale)


@dataclasses.dataclass(frozen=True)
class Form:
    """How an argument of the transformer holds its rows, where it is not a tensor with the batch axis first."""

    axis: int = 0
    """The batch axis."""
    listed: bool = False
    """Whether it is a list of pictures, one for each row, (channel, frame, y, x) with one frame; so is then the output."""
    stacked: bool = False
    """Whether it is a list with a tensor for each block, (row, ...); here it is one, (row, block, ...)."""
    ragged: bool = False
    """Whether it is text as long as the longest row of a call: the transformer masks what follows a row's own tokens."""
    led: bool = False
    """Whether the output holds other tokens before those of this argument, the latents."""
    masked: bool = True
    """Whether it does. Without a mask a row depends on the lengths of the others, so a call has one row (`CallForm.alone`)."""

    drawn: bool = False
    """Whether it is one of several things that the model draws, (row, token, channel): the output is a tuple with a prediction
    of each, in the order of the forms."""

    def joined(self, value: Any) -> Any:
        """With the batch axis first."""
        if self.listed:
            return value if isinstance(value, torch.Tensor) else torch.cat([one.transpose(0, 1) for one in value])
        if self.stacked:
            return value if isinstance(value, torch.Tensor) else torch.stack(value, dim=1)
        return value.movedim(self.axis, 0)

    def parted(self, rows: torch.Tensor) -> Any:
        """The inverse."""
        if self.stacked:
            return list(rows.unbind(1))
        return list(rows.unsqueeze(2).unbind(0)) if self.listed else rows.movedim(0, self.axis)


class CallForm:
    """The part of an `Anatomy` that says what a call of the transformer looks like."""

    row_inputs: tuple[str, ...]
    forms: Mapping[str, Form]
    streams: tuple[Stream, ...]
    lengths: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    after_text: Callable[[Mapping[str, Any]], Mapping[str, Any]]

    @property
    def predicts(self) -> tuple[str, ...]:
        """The arguments of what the model draws, where there are several."""
        return tuple(name for name, form in self.forms.items() if form.drawn)

    @property
    def alone(self) -> bool:
        """Whether a row depends on the lengths of the other rows' texts: calls then have one row."""
        return any(not form.masked for form in self.forms.values())

    def rows_first(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the transformer with the batch axis first, as in all of this package. One row for all is repeated."""
        found = {name: self.forms[name].joined(value) if name in self.forms else value for name, value in given.items()}
        count = len(found[self.row_inputs[0]])
        return {name: every_row(value, count) if name in self.row_inputs else value for name, value in found.items()}

    def as_called(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse: arguments as the transformer takes them."""
        return {name: self.forms[name].parted(value) if name in self.forms else value for name, value in rows.items()}

    def as_long(self, bound: dict[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
        """A call's arguments with ragged ones lengthened with zeros to hold those of other rows. Where calls have one row, they
        are made as long as the other row's, and so are the arguments that follow from their length.
        """
        ragged = [name for name, form in self.forms.items() if form.ragged and name in bound and name in others]
        fitted = {**bound, **{name: longer(bound[name], others[name].shape[-2]) for name in ragged}}
        if not self.alone:
            return fitted
        for name in ragged:
            if len(bound[name]) > 1 and bound[name].shape[-2] != others[name].shape[-2]:
                raise InputError("a text of another length cannot take the place of one of several rows: call with one row")
            fitted[name] = fitted[name][..., : others[name].shape[-2], :]
        return {**fitted, **self.after_text(fitted)} if ragged else fitted

    @property
    def _output(self) -> Form | None:
        return next((form for form in self.forms.values() if form.listed), None)

    def first_prediction(self, output: Any, given: Mapping[str, Any]) -> torch.Tensor:
        """The prediction in the output of a call with these arguments, (row, ...): that of the first generated stream, where
        there are several.
        """
        found: Any = output if isinstance(output, torch.Tensor) else output[0]
        found = found if self._output is None else self._output.joined(found)
        led = [name for name, form in self.forms.items() if form.led]
        found = found[:, -given[led[0]].shape[1] :] if led else found
        for stream in (one.name for one in self.streams if one.role == REFERENCE):  # it follows the generated tokens
            found = found[:, : given[self.row_inputs[0]].shape[1] - self.lengths(given)[stream]]
        return found  # type: ignore[no-any-return]

    def prediction(self, output: Any, given: Mapping[str, Any]) -> torch.Tensor:
        """Likewise those of all generated streams, one behind the other, along axis 1."""
        return torch.cat(list(output[: len(self.predicts)]), dim=1) if self.predicts else self.first_prediction(output, given)

    def as_output(self, prediction: torch.Tensor, given: Mapping[str, Any]) -> Any:
        """The inverse: the output that diffusers' pipelines expect of a call with these arguments."""
        if self.predicts:
            return torch.split(prediction, [given[name].shape[1] for name in self.predicts], dim=1)
        return as_output(prediction if self._output is None else self._output.parted(prediction), given["return_dict"])


def bind_inputs(block: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A block's inputs by argument name, positional or not."""
    names, defaults, more = _parameters(type(block).forward)
    if len(args) > len(names) and not more:
        raise TypeError(f"{type(block).__name__}.forward takes {len(names)} positional arguments; got {len(args)}")
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}


@functools.cache
def _parameters(forward: Any) -> tuple[tuple[str, ...], dict[str, Any], bool]:
    """The positional parameters of a forward after `self`, all defaults, and whether it takes more (`*args`), without names."""
    _, *own = inspect.signature(forward).parameters.values()
    named = [one for one in own if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    defaults = {one.name: one.default for one in named if one.default is not one.empty}
    more = any(one.kind is one.VAR_POSITIONAL for one in own)
    return tuple(one.name for one in named if one.kind is not one.KEYWORD_ONLY), defaults, more


def as_output(prediction: Any, return_dict: bool) -> Any:
    """Wrap a prediction in the output that diffusers' pipelines expect."""
    if not return_dict:
        return (prediction,)
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    return Transformer2DModelOutput(sample=prediction)


def in_place_of(value: Any, old: Any) -> Any:
    """One row's argument in place of every row's, in the old one's dtype and device. A shorter one (a mask over the text alone,
    in place of one over text and image) is completed with the old one's last tokens.
    """
    if not isinstance(old, list) and value.ndim < old.ndim:  # a timestep, of a call with one for every token
        value = value.reshape(*value.shape, *[1] * (old.ndim - value.ndim)).expand(-1, *old.shape[1:])
    if isinstance(old, list):
        return [value[0].to(old[0].device, old[0].dtype)] * len(old)
    wide = value.to(old.device, old.dtype).expand(len(old), *value.shape[1:])
    if value.ndim == old.ndim > 1 and value.shape[1] < old.shape[1] and value.shape[2:] == old.shape[2:]:
        return torch.cat([wide, old[:, value.shape[1] :]], dim=1)
    return wide.contiguous()


def every_row(value: Any, count: int) -> Any:
    """A tensor of one row for all rows, repeated without a copy; anything else as it is."""
    one = isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == 1
    return value.expand(count, *value.shape[1:]) if one and count > 1 else value


def take_rows(value: Any, rows: Any) -> Any:
    """Select rows of a call's argument: a tensor, a list with one item per row, or a mapping of these; `rows` is a slice or
    indices.
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {name: take_rows(item, rows) for name, item in value.items()}
    if isinstance(value, list):
        return value[rows] if isinstance(rows, slice) else [value[row] for row in rows]
    return value[rows]


def add_rows(first: Any, second: Any) -> Any:
    """Concatenate the rows of two such arguments."""
    if first is None:
        return None
    if isinstance(first, Mapping):
        return {name: add_rows(item, second[name]) for name, item in first.items()}
    return first + second if isinstance(first, list) else torch.cat([first, second])


def longer(value: torch.Tensor, length: int) -> torch.Tensor:
    """Text, (row, ..., token, channel), with zeros behind it up to a length."""
    return torch.nn.functional.pad(value, (0, 0, 0, max(length - value.shape[-2], 0)))
