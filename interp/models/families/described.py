"""All that is known of one model family, as its file states it."""

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
    """The same as its anatomy's."""
    transformer: str
    """The transformer's class in diffusers."""
    describe: Describe
    """(transformer) -> its anatomy."""
    pipelines: tuple[PipelineSpec, ...]
    own_guidance: OwnGuidance
    published: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """Transformer configs of the catalog's models, so that their shapes need no network. Where the hub's own config is on the
    machine, `interp inspect` uses that one."""
