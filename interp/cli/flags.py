"""Flags from dataclasses: a command's parameter that is a dataclass becomes one flag per field.

The help is the field's text (`Doc`). A value that accepts text is passed as text, and the dataclass parses it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from interp.base.options import default_of, text_of, typed


def flags(command: Callable[..., None]) -> Callable[..., None]:
    """Make the command for Typer: replace dataclass parameters by flags, with defaults from the parameter's default."""
    hints = get_type_hints(command, include_extras=True)
    return spread(command, {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}, hints)


def spread(command: Callable[..., None], kinds: Mapping[str, Any], hints: Mapping[str, Any]) -> Callable[..., None]:
    """Like `flags`, for the given dataclass parameters. Where two have a field of one name, the first one's is the flag."""
    signature = inspect.signature(command)
    taken: dict[str, str] = {}
    shown: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if name not in kinds:
            shown.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[name]))
            continue
        for field in dataclasses.fields(kinds[name]):
            annotation = typed(kinds[name])[field.name]
            if text_of(annotation) and field.name not in {*taken, *signature.parameters}:
                taken[field.name] = name
                shown.append(flag(field, annotation, parameter.default))

    @functools.wraps(command)
    def called(**given: Any) -> None:
        own = {name: value for name, value in given.items() if name not in taken}
        for name, kind in kinds.items():
            values = {field: given[field] for field, of in taken.items() if of == name and given[field] is not None}
            default = signature.parameters[name].default
            own[name] = kind(**values) if default is inspect.Parameter.empty else dataclasses.replace(default, **values)
        command(**own)

    order = sorted(shown, key=lambda one: one.default is not one.empty)
    called.__signature__ = inspect.Signature(order)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in order}
    return called


def flag(field: dataclasses.Field[Any], annotation: Any, defaults: Any) -> inspect.Parameter:
    """One field as a Typer option. The dataclass holds the default of a text that stands for several values."""
    default = default_of(field) if defaults is inspect.Parameter.empty else getattr(defaults, field.name)
    kind, name, text = kind_of(annotation), f"--{field.name.replace('_', '-')}", text_of(annotation)
    if kind is str and isinstance(default, Sequence) and not isinstance(default, str):
        text, default = f"{text} [default: {','.join(map(str, default))}]" if default else text, None
    if isinstance(default, tuple):
        default = list(default)
    optional = default is None
    metavar = "<str>" if kind == list[str] else None
    shown = typer.Option(f"{name}/--no-{name[2:]}" if default is True else name, help=text, metavar=metavar)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind | None if optional else kind, shown],
    )


def kind_of(annotation: Any) -> Any:
    """The type of a value on the command line: a path or a text where possible, else texts, or a plain value."""
    members = list(members_of(annotation))
    for kind in (Path, str):
        if kind in members:
            return kind
    if any(typing.get_origin(one) in (Sequence, list) for one in members):
        return list[str]
    return next(one for one in (bool, int, float) if one in members)


def members_of(annotation: Any) -> Any:
    """The types of a union, without `None`."""
    if typing.get_origin(annotation) is Annotated:
        annotation = annotation.__origin__
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for one in typing.get_args(annotation):
            yield from members_of(one)
    elif annotation is not type(None):
        yield annotation
