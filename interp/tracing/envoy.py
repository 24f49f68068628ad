"""nnsight's view of a transformer, installed for a while. Only this package uses nnsight."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from nnsight import NNsight
from nnsight.intervention.envoy import Envoy
from nnsight.intervention.interleaver import Mediator

from interp.interventions.forks import Slot

INSTALLED = ("forward", "__nnsight__", Slot.name)
"""What a view puts into the dictionaries of modules."""


class Transformer(NNsight):  # type: ignore[misc]
    """An envoy that does not move inputs: offloaded weights may be on another device, or on none yet."""

    device = property(lambda self: None)


def module_references(transformer: Any) -> list[weakref.ref[Any]]:
    """The modules of a transformer, to recognise later."""
    return [weakref.ref(module) for module in transformer.modules()]


def has_modules(transformer: Any, references: Sequence[weakref.ref[Any]]) -> bool:
    """Whether these are the modules of the transformer."""
    now = list(transformer.modules())
    return len(now) == len(references) and all(module is one() for module, one in zip(now, references, strict=True))


class Observer:
    """In place of nnsight's cache: receives the values at some locations in the model's own flow, after interventions.

    Reading a value in a trace's body costs two switches between greenlets; this costs a call. It implements what nnsight 0.8
    calls on a cache (`subscriptions`, `observe_selected`).
    """

    def __init__(self, actions: Mapping[str, Callable[[Any], None]]) -> None:
        """`actions`: by location, such as `model.transformer_blocks.0.output`; an input is (args, kwargs)."""
        self.actions = dict(actions)

    def subscribe(self) -> None:
        """Called in the trace's body, before it reads a value."""
        Mediator.current("Observer").caches.append(self)

    def subscriptions(self) -> dict[str, Callable[[Any], None]]:
        """What to do, by location."""
        return self.actions

    def observe_selected(self, action: Callable[[Any], None], value: Any) -> None:
        """Do it."""
        action(value)


class View:
    """An nnsight envoy of a transformer as it is now; `remove` puts back what every module had."""

    def __init__(self, transformer: Any, used: Collection[str] | None = None) -> None:
        """`used`: paths of the modules that a trace reads or edits. The others keep their own forward, which costs nothing."""
        self.modules = module_references(transformer)
        self.before = [(module, _own(module)) for module in transformer.modules()]
        slot = Slot(transformer)
        if "forward" not in transformer.__dict__:  # one that another library wraps stays as it is
            transformer.__dict__[Slot.name] = transformer.__dict__["forward"] = slot
        self.envoy = Transformer(transformer) if used is None else _partly(transformer, used)

    def remove(self) -> None:
        """Give every module the forward that it had."""
        for module, own in self.before:
            for name in INSTALLED:
                module.__dict__.pop(name, None)
            module.__dict__.update(own)


def _partly(transformer: Any, used: Collection[str]) -> Transformer:
    """An envoy of some modules and those around them."""
    parts = {part for path in used for part in itertools.accumulate(path.split("."), "{}.{}".format)}
    kept = {id(transformer.get_submodule(part)) for part in parts}

    def part_of(base: type[Any]) -> type[Any]:
        def add(self: Any, name: str, module: Any) -> Any:
            return base._add_envoy(self, name, module) if id(module) in kept else None

        return type(base.__name__, (base,), {"_add_envoy": add})

    found: Transformer = part_of(Transformer)(transformer, envoys=part_of(Envoy))
    return found


def _own(module: Any) -> dict[str, Any]:
    return {name: module.__dict__[name] for name in INSTALLED if name in module.__dict__}


@contextlib.contextmanager
def viewed(transformer: Any, used: Collection[str] | None = None) -> Iterator[Transformer]:
    """An envoy of the transformer inside; afterwards every module is as before."""
    view = View(transformer, used)
    try:
        yield view.envoy
    finally:
        view.remove()
