"""The description of one model family."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

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
    published: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """Transformer configs of the catalog's models, so that their shapes need no network. `interp inspect` prefers the hub's own
    config where it is on this machine."""
