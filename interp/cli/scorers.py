"""Scorers by name, for `interp evaluate` and `interp findings`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.base.errors import InputError

CACHE = Path("cache") / "scores.sqlite"


def scorers_of(model: str, name: str, weights: list[str], real: Path | None, device: str) -> list[Any]:
    """The scorers of a name; for `auto`, those that fit the model."""
    from interp.evaluation.demo_scorer import DemoScorer
    from interp.evaluation.scorer import Plain

    if name == "auto":
        name = "demo" if model.startswith("demo") else "plain"
    if name in ("demo", "plain"):
        if weights or real is not None:
            raise InputError(f"weights and real are for metrics with weights; scorer {name} has none")
        return [DemoScorer()] if name == "demo" else [Plain()]
    return [_weighted(name, weights, real, device)]


def _weighted(name: str, weights: list[str], real: Path | None, device: str) -> Any:
    """The papers' metrics, named in a list separated by commas."""
    from interp.evaluation.weighted import SETS, SINGLES, Weighted
    from interp.experiments.arguments import pictures_of

    asked = [part.strip() for part in name.split(",") if part.strip()]
    unknown = [part for part in asked if part not in SINGLES | SETS]
    if unknown or not asked:
        known = ", ".join(SINGLES | SETS)
        raise InputError(f"scorer must be demo, plain, auto, or some of {known} separated by commas; got {name!r}")
    pairs = dict(given.partition("=")[::2] for given in weights)
    for name, where in pairs.items():
        if not where:
            raise InputError(f"weights must be METRIC=FOLDER, FILE or hub id; got {name!r}")
    return Weighted(asked, pairs, real=pictures_of(real, "real"), device=device, cache=CACHE)
