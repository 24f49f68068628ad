"""The model families, one data file each; each `FAMILY` here is registered. In your own code: `interp.register_anatomy`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from interp.models.anatomy import Describe
from interp.models.catalog import CATALOG
from interp.models.families.pipeline import ModelFamily, OwnGuidance, PipelineSpec


def _found() -> list[ModelFamily]:
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return [module.FAMILY for module in modules if hasattr(module, "FAMILY")]


FAMILIES = {family.name: family for family in _found()}
ANATOMIES: dict[str, Describe] = {family.transformer: family.describe for family in FAMILIES.values()}
PIPELINES: dict[str, PipelineSpec] = {spec.pipeline_class: spec for family in FAMILIES.values() for spec in family.pipelines}
OWN_GUIDANCE: dict[str, OwnGuidance] = {family.transformer: family.own_guidance for family in FAMILIES.values()}
"""How the pipelines of a transformer class run their own guidance."""
CONFIGS: dict[str, Mapping[str, Any]] = {name: entry.config for name, entry in CATALOG.items() if entry.config is not None}
"""Published transformer configs, by the catalog's name and in its order."""


def register_anatomy(
    transformer_class: str,
    describe: Describe,
    pipeline: PipelineSpec | None = None,
    own_guidance: OwnGuidance | None = None,
) -> None:
    """Register a transformer class in this process; with `pipeline`, also the diffusers pipeline that samples with it.

    `describe(transformer)` returns an `Anatomy`; `own_guidance` states how the class's pipelines run their own guidance, which
    `interp.guided` needs. Registering a class again replaces its entry.
    """
    ANATOMIES[transformer_class] = describe
    if pipeline is not None:
        PIPELINES[pipeline.pipeline_class] = pipeline
    if own_guidance is not None:
        OWN_GUIDANCE[transformer_class] = own_guidance
