"""All experiments: every file here that defines a `Kind`. Use `register` for your own."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from interp.base.errors import InputError
from interp.experiments.kind import Kind

_REGISTERED: dict[str, Kind] = {}


@functools.cache
def _found() -> dict[str, Kind]:
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return {one.name: one for module in modules for one in vars(module).values() if isinstance(one, Kind)}


def registered() -> dict[str, Kind]:
    """All experiments by name, including registered ones."""
    return {**_found(), **_REGISTERED}


def register(kind: Kind) -> Kind:
    """Add an experiment in this process, with a command, a page and a reference like the others."""
    if kind.name in _found():
        raise InputError(f"name: {kind.name!r} is an experiment of interp; choose another name")
    _REGISTERED[kind.name] = kind
    return kind


def markdown() -> str:
    """The table of docs/experiments.md."""
    rows = ["| command | what it does | Python |", "|---|---|---|"]
    rows += [f"| `interp {name}` | {kind.question} | `interp.{name}(...).run()` |" for name, kind in registered().items()]
    return "\n".join(rows) + "\n"


def kind_of(name: str) -> Kind | None:
    """The experiment of that name, or `None`."""
    return registered().get(name)
