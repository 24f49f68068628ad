"""Checks for your own models and machine, and tiny models with known answers.

check_anatomy(model)    check a model's anatomy on the model itself
selfcheck(model)        the same, and compare traces with the plain pipeline, on this machine and these weights
plant(family, ...)      a tiny model with planted massive channels: the correct result of an analysis is known
FamilyTests             pytest laws for a model family: inherit it in your own test file (needs pytest)
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
