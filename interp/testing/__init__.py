"""Proofs for your own models and machine, and models with known answers.

check_anatomy(model)    an anatomy proves itself on its model
selfcheck(model)        the same, and traces against the plain pipeline, on this machine and these weights
plant(family, ...)      a tiny model with massive channels planted in it: what an analysis should find is known
"""

from interp.testing.checks import Check, Report, check_anatomy, selfcheck, untraced
from interp.testing.plant import Planted, plant

__all__ = ["Check", "Planted", "Report", "check_anatomy", "plant", "selfcheck", "untraced"]
