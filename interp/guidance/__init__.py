"""Guidance: degraded branches (edits on copies of the cond or uncond rows) and a rule that combines them.

from interp.guidance import ClassifierFree, DetailGuidance
guidance = ClassifierFree(4) + DetailGuidance.preset("sd3")          # equation 5 of Detail Guidance
interp.generate(model, prompts, guidance=guidance)
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    **dict.fromkeys(
        (
            "APG",
            "Amplify",
            "AutoGuidance",
            "CFGPlusPlus",
            "CFGZeroStar",
            "ClassifierFree",
            "DetailGuidance",
            "PerturbedAttention",
            "SkipLayer",
        ),
        "methods",
    ),
    **dict.fromkeys(("Combined", "from_json", "parse"), "combine"),
    "PRESETS": "presets",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'interp.guidance' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"interp.guidance.{_HOMES[name]}"), name)
