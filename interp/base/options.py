"""Options that many functions and commands take, each defined once: `Loading`, `Sampling`; `Execution` is in `executor`.

Functions take the fields as keywords (`split`), commands as flags (`interp.cli.flags`); `Doc` texts are the help of both.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from typing_extensions import Doc

from interp.base.errors import InputError

Made = TypeVar("Made")
Indices = Sequence[int] | str | None
"""Integers, or text such as "0,6,12-20"."""
Numbers = Sequence[float] | str
Names = Sequence[str] | str
Prompts = Annotated[
    Sequence[str] | str | Path, Doc("Prompts: one per line, or a `prompt` column of a .tsv, .csv or .jsonl file.")
]
Channels = Annotated[Indices, Doc('Channels such as "29" or "3,20-22". [default: the massive ones]')]
Blocks = Annotated[Indices, Doc('Blocks, such as "0-3". [default: all]')]
Stream = Annotated[str, Doc("A stream, such as image or text, or both.")]
OneStream = Annotated[str, Doc("A stream, such as image or text.")]
SETTINGS = "max_sequence_length=24"


@dataclasses.dataclass(frozen=True)
class Loading:
    """How a model is loaded."""

    model: Annotated[str, Doc("Alias (see `interp models`), diffusers folder, or hub id.")]
    dtype: Annotated[str | None, Doc("float32, bfloat16 or float16. [default: float32 on a CPU, else bfloat16]")] = None
    device: Annotated[str, Doc("auto, cpu, cuda, cuda:1, ...")] = "auto"
    offload: Annotated[str, Doc("none, model, sequential or group.")] = "none"
    quantize: Annotated[str | None, Doc("int8, float8 or nf4: the blocks' weights; gates stay exact.")] = None
    revision: Annotated[str | None, Doc("Hub revision of the model.")] = None
    local_files_only: Annotated[bool, Doc("Never use the network.")] = False
    variant: Annotated[str | None, Doc("Variant of the weights' files, such as fp16.")] = None
    identity: Annotated[str, Doc("full: hash every weight; sampled: about 1,024 values of each tensor.")] = "full"


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How pictures are drawn. Unset options take the model's defaults."""

    steps: Annotated[int | None, Doc("Sampling steps. [default: the model's]")] = None
    seed: Annotated[int, Doc("The number that all noise is made from.")] = 0
    repeats: Annotated[int, Doc("Pictures per prompt, each with other noise.")] = 1
    seeds: Annotated[
        Any | str,
        Doc('own: noise of its own for every prompt and repeat; shared: SEED, SEED+1, ... for all prompts; or such as "0-3".'),
    ] = "own"
    height: Annotated[int | None, Doc("Pixels. [default: the model's]")] = None
    width: Annotated[int | None, Doc("Pixels. [default: the model's]")] = None
    guidance: Annotated[Any | str | None, Doc('Such as "cfg:4" or "cfg:4+dg:1"; only conditional rows are recorded.')] = None
    negative_prompt: Annotated[str, Doc("Prompt of the unconditional branch.")] = ""
    interventions: Annotated[Sequence[Any] | str, Doc("Edits: a JSON file with a list of edits, as in a store's plan.")] = ()
    settings: Annotated[
        Mapping[str, Any] | str | None,
        Doc('Further arguments of the pipeline, such as "max_sequence_length=24,embedded_guidance=3.5" or "image=cat.png".'),
    ] = None

    def without(self, *names: str, why: str) -> Sampling:
        """These options; raises InputError if one of the named options is set."""
        for field in dataclasses.fields(self):
            if field.name in names and getattr(self, field.name) not in (field.default, [], None):
                raise InputError(f"{field.name}: {why}; leave it out")
        return self


def split(given: Mapping[str, Any], *kinds: type[Any], of: str = "") -> list[Any]:
    """Build each dataclass from the keywords that are its fields; an unknown keyword raises TypeError."""
    known = {field.name: kind for kind in kinds for field in dataclasses.fields(kind)}
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise TypeError(f"{of or 'this function'} has no argument {unknown[0]!r}; it has {', '.join(known)}")
    return [kind(**{name: value for name, value in given.items() if known[name] is kind}) for kind in kinds]


def takes(*kinds: type[Any]) -> Callable[[Made], Made]:
    """Replace `**given` in a function's signature, as `help` prints it, with the fields of dataclasses."""

    def shown(function: Any) -> Any:
        own = inspect.signature(function)
        kept = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
        names = {one.name for one in kept}
        function.__signature__ = own.replace(parameters=[*kept, *(one for one in parameters(*kinds) if one.name not in names)])
        return function

    return shown


def parameters(*kinds: Any) -> list[inspect.Parameter]:
    """Fields of dataclasses as parameters: required ones first, others keyword-only; the first field of each name."""
    found: dict[str, inspect.Parameter] = {}
    for kind in kinds:
        for field in dataclasses.fields(kind):
            default = default_of(field)
            required = default is inspect.Parameter.empty
            place = inspect.Parameter.POSITIONAL_OR_KEYWORD if required else inspect.Parameter.KEYWORD_ONLY
            made = inspect.Parameter(field.name, place, default=default, annotation=typed(kind)[field.name])
            found.setdefault(field.name, made)
    return sorted(found.values(), key=lambda one: one.kind)


@functools.cache
def typed(kind: Any) -> dict[str, Any]:
    """The fields' types with their annotations."""
    return get_type_hints(kind, include_extras=True)


def text_of(annotation: Any) -> str:
    """The help text in an annotation: the outermost `Doc`, which comes last."""
    texts = [one.documentation for one in getattr(annotation, "__metadata__", ()) if isinstance(one, Doc)]
    return texts[-1] if texts else ""


def default_of(field: dataclasses.Field[Any]) -> Any:
    """A field's default, or `inspect.Parameter.empty`."""
    if field.default is not dataclasses.MISSING:
        return field.default
    return inspect.Parameter.empty if field.default_factory is dataclasses.MISSING else field.default_factory()


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """A share of a run's batches, "i/n" with i from 0 to n - 1."""
    if text is None:
        return None
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 0 <= int(index) < int(count)):
        raise InputError(f"shard must be i/n with i from 0 to n - 1, such as 0/4 or 3/4; got {text!r}")
    return int(index), int(count)


def as_settings(given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Convert settings: a mapping, or text such as "max_sequence_length=24,embedded_guidance=3.5"."""
    if not isinstance(given, str):
        if given is not None and not isinstance(given, Mapping):
            raise InputError(f"settings must be NAME=VALUE between commas, such as {SETTINGS}, or a dict; got {given!r}")
        return dict(given or {})
    found: dict[str, Any] = {}
    for part in given.split(","):
        name, _, value = part.strip().partition("=")
        if not name or not value:
            raise InputError(f"settings must be NAME=VALUE between commas, such as {SETTINGS}; got {given!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:  # the path of a picture
            found[name] = value
    return found
