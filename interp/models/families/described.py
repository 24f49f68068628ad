"""The description of one model family."""

from __future__ import annotations

import dataclasses

from interp.models.anatomy import Describe
from interp.models.families.pipeline import OwnGuidance, PipelineSpec


@dataclasses.dataclass(frozen=True)
class ModelFamily:
    """One model family."""

    name: str
    """Equal to its anatomy's `family`."""
    transformer: str
    """The transformer's class in diffusers."""
    describe: Describe
    """(transformer) -> its anatomy."""
    pipelines: tuple[PipelineSpec, ...]
    own_guidance: OwnGuidance
