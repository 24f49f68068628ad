"""Interventions: frozen values that change a state or a gate at chosen sites and steps.

Anything with these three members is one. Pure torch on the tensors it is given; it never changes them in place.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from interp.sites import Site


class Intervention(Protocol):
    """An edit of one or more sites."""

    def touches(self, site: Site, step: int) -> bool:
        """Whether this site is edited at this step."""

    def apply(self, site: Site, step: int, value: Tensor) -> Tensor:
        """The edited value, of the same shape: (batch, token, channel) for hidden, (batch, channel) for alpha."""

    def to_json(self) -> dict[str, Any]:
        """The edit as plain JSON values, for the plan."""
