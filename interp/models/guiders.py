"""Base classes of diffusers' guiders, which are experimental there."""

from diffusers.configuration_utils import register_to_config
from diffusers.guiders.guider_utils import BaseGuidance, GuiderOutput

__all__ = ["BaseGuidance", "GuiderOutput", "register_to_config"]
