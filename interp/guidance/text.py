"""Guidance as text and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from interp.base.errors import InputError
from interp.guidance import degraded, methods
from interp.guidance.method import Combined, Method
from interp.guidance.presets import name_for

Load = Callable[[str], Any]
KINDS = [
    kind
    for kind in (*vars(methods).values(), *vars(degraded).values())
    if isinstance(kind, type) and issubclass(kind, Method) and kind.name
]
TEXTS = ("channels", "blocks", "steps", "stream", "of", "part", "source", "model", "text", "sizes")  # options kept as text
METHODS: dict[str, type[Method]] = {kind.name: kind for kind in KINDS}


def from_json(stored: list[dict[str, Any]], load: Load | None = None) -> Combined:
    """The inverse of `to_json`; `load` loads the model of autoguidance by its name."""
    found = []
    for one in stored:
        plain = dict(one)
        kind = plain.pop("method", None)
        if kind not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}; got {kind!r}")
        if kind == degraded.AutoGuidance.name:
            plain = {key: value for key, value in plain.items() if key not in ("weights", "sampled", "state")}
            plain["model"] = _loaded(load, plain["model"])
        if kind == degraded.PerturbedAttention.name:
            plain = {"text": degraded.CUT, **plain}
        found.append(METHODS[kind](**plain))
    return Combined(tuple(found))


def parse(text: str, model: Any, load: Load | None = None) -> Combined:
    """Parse guidance, such as "cfg:4+dg:1", "dg:1:block=5:channels=810", "dg:1:reading=input" or "slg:2.8:blocks=7-9".

    Each term is METHOD:SCALE followed by :NAME=VALUE options. `dg` and `amplify` without channels use the model's preset;
    `load` loads the other model of `auto` (default MODEL-early).
    """
    found = []
    for part in text.split("+"):
        name, _, rest = part.strip().partition(":")
        if name not in METHODS:
            raise InputError(f"guidance must be a sum of {', '.join(METHODS)}, such as cfg:4+dg:1; got {part.strip()!r}")
        words = [word for word in rest.split(":") if word]
        given: dict[str, Any] = {}
        for word in words:
            key, equals, value = word.partition("=")
            given[key if equals else "scale"] = value if equals else key
        found.append(_method(name, given, model, load))
    return Combined(tuple(found))


def _method(name: str, given: dict[str, Any], model: Any, load: Load | None) -> Method:
    kind = METHODS[name]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    presets = name in (degraded.DetailGuidance.name, methods.Amplify.name)
    reading = {"reading": given.pop("reading")} if presets and "reading" in given else {}
    unknown = sorted(given.keys() - fields.keys())
    if unknown or "scale" not in given:
        problem = f"has no option {unknown[0]!r}" if unknown else "needs a scale"
        raise InputError(f"guidance: {name} {problem}; write {name}:SCALE, with options {', '.join(fields)} as NAME=VALUE")
    plain = {key: _value(name, key, value) for key, value in given.items()}
    if name == degraded.AutoGuidance.name:
        plain["model"] = _loaded(load, given.get("model", f"{model.name}-early"))
    if reading and "block" in plain:
        raise InputError("guidance: reading chooses the preset's block; give block or reading")
    if presets and not {"channels", "block"} <= plain.keys():
        found = degraded.DetailGuidance.preset(name_for(model), **reading)
        plain = {"channels": found.channels, "block": found.block, **plain}
        if name == degraded.DetailGuidance.name:
            plain.setdefault("source", found.source)
    missing = [key for key in ("blocks", "channels", "block", "sizes") if key in fields and key not in plain]
    if missing:
        raise InputError(f"guidance: {name} needs {missing[0]}; write {name}:{given['scale']}:{missing[0]}=VALUE")
    return kind(**plain)


def _value(name: str, key: str, text: Any) -> Any:
    if key in ("channels", "blocks", "steps", "stream", "of", "part", "source", "model", "text", "sizes") or text in (
        "zero",
        "mean",
    ):
        return text
    try:
        return int(text) if key in ("block", "zero_steps") else float(text)
    except ValueError:
        raise InputError(f"guidance: {key} of {name} must be a number; got {text!r}") from None


def _loaded(load: Load | None, name: str) -> Any:
    if load is None:
        raise InputError(f"guidance: auto needs its other model, {name}; give AutoGuidance(model=interp.load({name!r}), ...)")
    return load(name)
