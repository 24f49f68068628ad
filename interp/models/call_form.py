"""How a transformer's calls hold their rows and their timestep, and how this package holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.models.hook_points import every_row
from interp.models.lazy import torch


class CallForm:
    """The part of an `Anatomy` that says what a call of the transformer looks like."""

    row_inputs: tuple[str, ...]
    row_axes: Mapping[str, int]
    timestep_scale: float
    timestep_rises: bool
    listed: str | None

    def timestep_given(self, scheduled: Any) -> Any:
        """What the transformer receives at the scheduler's timestep."""
        given = scheduled / self.timestep_scale
        return 1 - given if self.timestep_rises else given

    def rows_first(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the transformer with the batch axis first, as in all of this package. One row for all is repeated."""
        rows, axes = self.row_inputs, self.row_axes
        found = {name: value.movedim(axes[name], 0) if name in axes else value for name, value in given.items()}
        if self.listed in found:
            found[self.listed] = self._joined(found[self.listed])
        return {name: every_row(value, len(found[rows[0]])) if name in rows else value for name, value in found.items()}

    def as_called(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse: arguments as the transformer takes them."""
        found = {
            name: value.movedim(0, self.row_axes[name]) if name in self.row_axes else value for name, value in rows.items()
        }
        if self.listed in found:
            found[self.listed] = self._parted(found[self.listed])
        return found

    def prediction(self, output: Any) -> torch.Tensor:
        """The prediction in a call's output, (row, ...)."""
        found: torch.Tensor = output[0] if self.listed is None else self._joined(output[0])
        return found

    def as_predicted(self, prediction: torch.Tensor) -> Any:
        """The inverse, without the output around it."""
        return prediction if self.listed is None else self._parted(prediction)

    def _joined(self, pictures: Any) -> torch.Tensor:
        return pictures if isinstance(pictures, torch.Tensor) else torch.cat([one.transpose(0, 1) for one in pictures])

    def _parted(self, rows: torch.Tensor) -> list[torch.Tensor]:
        return list(rows.unsqueeze(2).unbind(0))
