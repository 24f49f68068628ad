"""Every experiment, one file each: a file here with a `Kind` is known. In your own code: `register`."""

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


def kinds() -> dict[str, Kind]:
    """Every experiment by name: those of this package, and those registered."""
    return {**_found(), **_REGISTERED}


def register(kind: Kind) -> Kind:
    """Make an experiment of your own known to this process: it has a command, a page and a reference like the others."""
    if kind.name in _found():
        raise InputError(f"name: {kind.name!r} is an experiment of interp; choose another")
    _REGISTERED[kind.name] = kind
    return kind


def kind_of(name: str) -> Kind | None:
    """The experiment of that name; `None` where this process does not know it."""
    return kinds().get(name)
