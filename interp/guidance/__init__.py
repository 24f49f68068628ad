"""Guidance: degraded branches (edits on copies of the cond or uncond rows) and a rule that combines them.

from interp.guidance import ClassifierFree, DetailGuidance
guidance = ClassifierFree(4) + DetailGuidance.preset("sd3")          # equation 5 of Detail Guidance
interp.generate(model, prompts, guidance=guidance)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
