"""Which transformers a user edits or guides, or a run draws from, at the moment: a run inside is refused."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

from interp.base.errors import InputError

_IN_USE: weakref.WeakKeyDictionary[Any, list[str]] = weakref.WeakKeyDictionary()
"""Transformers inside a user's `edited` or `guided`, or inside a run ("traced")."""


@contextlib.contextmanager
def using(transformer: Any, what: str) -> Iterator[None]:
    """Note that a user's own calls of a transformer are edited or guided inside."""
    _IN_USE.setdefault(transformer, []).append(what)
    try:
        yield
    finally:
        _IN_USE[transformer].remove(what)


def in_use(transformer: Any) -> list[str]:
    """In which of `edited` and `guided` a transformer is."""
    return _IN_USE.get(transformer, [])


def check_idle(transformer: Any) -> None:
    """Raise InputError inside `edited` or `guided`: a run there would be edited under a plan that does not say so."""
    if "traced" in in_use(transformer):
        raise InputError("model: its pipeline is being traced or drawn from; start the next run when that one has ended")
    if in_use(transformer):
        raise InputError(
            f"model: its pipeline is inside {in_use(transformer)[-1]}(...), which the plan of a run would not hold; leave the "
            "with block first, or give the run its own interventions= or guidance="
        )


@contextlib.contextmanager
def running(model: Any) -> Iterator[None]:
    """One run of a model at a time: other threads wait for its lock; another run inside this one is refused."""
    with model.lock:
        check_idle(model.pipe.transformer)
        with using(model.pipe.transformer, "traced"):
            yield
