"""nnsight's view of a transformer, installed for a while. Only this package uses nnsight."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from nnsight import NNsight

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


class View:
    """An nnsight envoy of a transformer as it is now; `remove` puts back what every module had."""

    def __init__(self, transformer: Any) -> None:
        self.modules = module_references(transformer)
        self.before = [(module, _own(module)) for module in transformer.modules()]
        slot = Slot(transformer)
        if "forward" not in transformer.__dict__:  # one that another library wraps stays as it is
            transformer.__dict__[Slot.name] = transformer.__dict__["forward"] = slot
        self.envoy = Transformer(transformer)

    def remove(self) -> None:
        """Give every module the forward that it had."""
        for module, own in self.before:
            for name in INSTALLED:
                module.__dict__.pop(name, None)
            module.__dict__.update(own)


def _own(module: Any) -> dict[str, Any]:
    return {name: module.__dict__[name] for name in INSTALLED if name in module.__dict__}


@contextlib.contextmanager
def viewed(transformer: Any) -> Iterator[Transformer]:
    """An envoy of the transformer inside; afterwards every module is as before."""
    view = View(transformer)
    try:
        yield view.envoy
    finally:
        view.remove()
