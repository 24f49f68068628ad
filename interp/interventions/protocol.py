"""The protocol of an edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from interp.base.sites import Site


class Intervention(Protocol):
    """An edit of one or more sites. It never changes its input tensors in place."""

    def touches(self, site: Site, step: int) -> bool:
        """Whether this site is edited at this step."""

    def apply(self, site: Site, step: int, value: Tensor) -> Tensor:
        """The edited value, of the same shape: (batch, token, channel) for hidden, (batch, channel) for alpha."""

    def to_json(self) -> dict[str, Any]:
        """The edit as plain JSON values, for the plan."""
