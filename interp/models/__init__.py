"""Models: the only place that imports diffusers. Loading, the catalog, anatomies, tiny and demo models."""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("anatomy", "catalog", "demo", "families", "tiny"):
        return importlib.import_module(f"interp.models.{name}")
    raise AttributeError(f"module 'interp.models' has no attribute {name!r}")
