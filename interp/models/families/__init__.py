"""The model families, one data file each. To add one in your own code: `interp.register_anatomy`."""

from __future__ import annotations

from interp.models.anatomy import Describe
from interp.models.families import dit, flux, sd3
from interp.models.families.pipeline import PipelineSpec

ANATOMIES: dict[str, Describe] = {
    "SD3Transformer2DModel": sd3.describe,
    "FluxTransformer2DModel": flux.describe,
    "DiTTransformer2DModel": dit.describe,
}
PIPELINES: dict[str, PipelineSpec] = {family.PIPELINE.pipeline_class: family.PIPELINE for family in (sd3, flux, dit)}
OWN_GUIDANCE = {"sd3": sd3.OWN_GUIDANCE, "flux": flux.OWN_GUIDANCE, "dit": dit.OWN_GUIDANCE}
"""How the pipelines of a family run their own guidance, by the anatomy's family."""


def register_anatomy(transformer_class: str, describe: Describe, pipeline: PipelineSpec | None = None) -> None:
    """Teach this process a transformer class; with `pipeline`, also the diffusers pipeline that samples with it.

    `describe(transformer)` returns an `Anatomy`. Registering a class again replaces what was known of it.
    """
    ANATOMIES[transformer_class] = describe
    if pipeline is not None:
        PIPELINES[pipeline.pipeline_class] = pipeline
