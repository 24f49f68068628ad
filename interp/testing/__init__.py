"""Proofs for your own models and machine, and models with known answers.

check_anatomy(model)    an anatomy proves itself on its model
selfcheck(model)        the same, and traces against the plain pipeline, on this machine and these weights
plant(family, ...)      a tiny model with massive channels planted in it: what an analysis should find is known
FamilyTests             pytest laws for a model family: inherit it in a test file of your own (needs pytest)
"""

from typing import Any

from interp.testing.checks import Check, Report, check_anatomy, selfcheck, untraced
from interp.testing.plant import Planted, plant

__all__ = ["Check", "FamilyTests", "Planted", "Report", "check_anatomy", "plant", "selfcheck", "untraced"]


def __getattr__(name: str) -> Any:
    if name == "FamilyTests":
        from interp.testing.laws import FamilyTests

        return FamilyTests
    raise AttributeError(f"module 'interp.testing' has no attribute {name!r}; it has {', '.join(__all__)}")
