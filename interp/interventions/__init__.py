"""Interventions: frozen values that change a state or a gate at chosen sites and steps. Pure torch.

The edits are `Zero`, `SetMean`, `Scale`, `Add`, `Clamp`, `Replace` and `Transport`, all with the same selections, and
`SwapConditioning` on what the model is conditioned on; `Displace`, `ZeroNormsKept` and `NormsAsIfZero` are controls for them.
Anything else with the three members of `Intervention` is an edit too. In traces and in `interp.generate` nnsight drives them;
`edited(model, edits)` puts the same edits on a pipeline as plain torch hooks, for calls of your own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from interp.sites import Site


class Intervention(Protocol):
    """An edit of one or more sites. It never changes the tensors it is given in place."""

    def touches(self, site: Site, step: int) -> bool:
        """Whether this site is edited at this step."""

    def apply(self, site: Site, step: int, value: Tensor) -> Tensor:
        """The edited value, of the same shape: (batch, token, channel) for hidden, (batch, channel) for alpha."""

    def to_json(self) -> dict[str, Any]:
        """The edit as plain JSON values, for the plan."""


_HOMES = {
    **dict.fromkeys(("Add", "Clamp", "Replace", "Scale", "SetMean", "Transport", "Zero"), "edits"),
    **dict.fromkeys(("Displace", "NormsAsIfZero", "ZeroNormsKept"), "controls"),
    "Selection": "selection",
    "SwapConditioning": "conditioning",
    "Values": "values",
    "edited": "hooks",
    "from_json": "stored",
}
__all__ = ["Intervention", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'interp.interventions' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"interp.interventions.{_HOMES[name]}"), name)
