"""Mechanistic interpretability for Diffusion Transformers.

    model = interp.load("demo")
    run = interp.trace(model, ["a large red circle on a black background"], out="cache/first.zarr")
    run.stats["max_abs"], run.gates["alpha"], run.images["image"]

Importing this package imports neither torch nor diffusers: names are resolved when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.cluster import Workers as Workers
    from interp.errors import InputError as InputError
    from interp.errors import InterpError as InterpError
    from interp.errors import InterpWarning as InterpWarning
    from interp.errors import ModelError as ModelError
    from interp.errors import PlanError as PlanError
    from interp.errors import RunError as RunError
    from interp.errors import StoreError as StoreError
    from interp.errors import TraceError as TraceError
    from interp.experiments.generate import generate as generate
    from interp.guidance.pipes import guided as guided
    from interp.models.anatomy import Anatomy as Anatomy
    from interp.models.families import register_anatomy as register_anatomy
    from interp.plan import Record as Record
    from interp.plan import SiteRecorder as SiteRecorder
    from interp.prompts import read_prompts as read_prompts
    from interp.run import trace as trace
    from interp.sites import Select as Select
    from interp.sites import Site as Site
    from interp.store.experiment import Experiment as Experiment
    from interp.store.experiment import open_experiment as open_experiment
    from interp.store.opened import Run as Run
    from interp.store.opened import open_run as open_run
    from interp.tracing.model import Model as Model
    from interp.tracing.model import load as load
    from interp.tracing.model import wrap as wrap

_HOMES = {
    "Anatomy": "interp.models.anatomy",
    "Experiment": "interp.store.experiment",
    "InputError": "interp.errors",
    "InterpError": "interp.errors",
    "InterpWarning": "interp.errors",
    "Model": "interp.tracing.model",
    "ModelError": "interp.errors",
    "PlanError": "interp.errors",
    "Record": "interp.plan",
    "Run": "interp.store.opened",
    "RunError": "interp.errors",
    "Select": "interp.sites",
    "Site": "interp.sites",
    "SiteRecorder": "interp.plan",
    "StoreError": "interp.errors",
    "TraceError": "interp.errors",
    "Workers": "interp.cluster",
    "generate": "interp.experiments.generate",
    "guided": "interp.guidance.pipes",
    "load": "interp.tracing.model",
    "open_experiment": "interp.store.experiment",
    "open_run": "interp.store.opened",
    "read_prompts": "interp.prompts",
    "register_anatomy": "interp.models.families",
    "trace": "interp.run",
    "wrap": "interp.tracing.model",
}
_PARTS = {
    "alignment": "interp.analysis.alignment",
    "attribution": "interp.analysis.attribution",
    "collapse": "interp.experiments.collapse",
    "comparison": "interp.analysis.comparison",
    "disrupt": "interp.experiments.disrupt",
    "dose": "interp.experiments.dose",
    "energy": "interp.analysis.energy",
    "evaluation": "interp.evaluation.evaluate",
    "features": "interp.experiments.features",
    "figures": "interp.figures",
    "findings": "interp.findings",
    "gates": "interp.experiments.gates",
    "govern": "interp.experiments.govern",
    "glance": "interp.analysis.glance",
    "guidance": "interp.guidance",
    "interventions": "interp.interventions",
    "lens": "interp.experiments.lens",
    "massive": "interp.analysis.massive",
    "metrics": "interp.metrics",
    "models": "interp.models",
    "patch": "interp.experiments.patch",
    "residual": "interp.analysis.residual",
    "segmentation": "interp.analysis.segmentation",
    "sites": "interp.sites",
    "stability": "interp.analysis.stability",
    "statistics": "interp.statistics",
    "study": "interp.analysis.study",
    "swap": "interp.experiments.swap",
    "sweep": "interp.experiments.sweep",
    "tokens": "interp.analysis.tokens",
    "transport": "interp.experiments.transport",
    "trend": "interp.analysis.trend",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(_PARTS[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'interp' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
