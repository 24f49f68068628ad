"""Detail Guidance as a guider of diffusers' modular pipelines: `DetailGuider(DetailGuidance.preset("sd3"), guidance_scale=4)`.

Guiders run each branch as a separate call: cond, uncond, and cond again with hooks that edit the channels. The result is
c + (guidance_scale - 1) (c - u) + w (c - d), equation 5 of arXiv 2510.11538. `interp.guided` does the same on
standard pipelines, with the degraded rows forked. Give the modular pipeline a negative prompt, "" for none: without one it has
no unconditional branch, and the guider raises an error.
"""

from __future__ import annotations

from typing import Any

from interp.base.errors import InputError
from interp.base.streams import GENERATED
from interp.guidance import equations
from interp.guidance.degraded import DetailGuidance
from interp.interventions.hooks import Driver
from interp.models.anatomy import describe
from interp.models.families import ANATOMIES
from interp.models.guiders import BaseGuidance, GuiderOutput, register_to_config

COND, UNCOND, DEGRADED = range(3)


class DetailGuider(BaseGuidance):  # type: ignore[misc]
    """A guider with three branches; guidance_scale 1 and w = 0 omit theirs."""

    _input_predictions = ["pred_cond", "pred_uncond", "pred_degraded"]  # noqa: RUF012

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        channels: list[int] | None = None,
        block: int | None = None,
        scale: float = 1.0,
        guidance_scale: float = 4.0,
        stream: str = GENERATED,
        edit: str | float = "zero",
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ) -> None:
        super().__init__(start, stop, enabled)
        if channels is None or block is None:
            raise InputError("DetailGuider needs channels and block; DetailGuider.of(DetailGuidance.preset(...)) sets them")
        self.detail = DetailGuidance(list(channels), block, scale, stream=stream, edit=edit)
        self.guidance_scale = guidance_scale
        self.handles: list[Any] = []

    @classmethod
    def of(cls, detail: DetailGuidance, guidance_scale: float = 4.0) -> DetailGuider:
        """From a `DetailGuidance`; `guidance_scale` is CFG's native scale."""
        if isinstance(detail.scale, tuple) or detail.steps is not None or detail.of != "cond":
            raise InputError("DetailGuider takes one scale for all steps, of the cond branch; set a window with start and stop")
        channels: Any = detail.channels
        given = {"stream": detail.stream, "edit": detail.edit}
        made: DetailGuider = cls(list(channels), detail.block, _number(detail.scale), guidance_scale, **given)
        return made

    def prepare_inputs(self, data: dict[str, tuple[Any, Any]]) -> list[Any]:
        """The inputs of each branch: cond, uncond, cond."""
        if UNCOND in self._needed() and not any(isinstance(value, tuple) for value in data.values()):
            raise InputError('DetailGuider: the pipeline gives no unconditional inputs; call it with negative_prompt=""')
        return [self._prepare_batch(data, int(one == UNCOND), self._input_predictions[one]) for one in self._needed()]

    def prepare_inputs_from_block_state(self, data: Any, input_fields: dict[str, Any]) -> list[Any]:
        """The same, from a block's state."""
        prepare = self._prepare_batch_from_block_state
        return [prepare(input_fields, data, int(one == UNCOND), self._input_predictions[one]) for one in self._needed()]

    def prepare_models(self, denoiser: Any) -> None:
        """Before each branch: attach the edits for the degraded one."""
        self._count_prepared += 1
        if self._needed()[self._count_prepared - 1] != DEGRADED:
            return
        driver = Driver(describe(denoiser, ANATOMIES), [self.detail.branches()[0].edits])
        self.handles = driver.attach(denoiser)

    def cleanup_models(self, denoiser: Any) -> None:
        """After each branch: remove the edits."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def forward(self, pred_cond: Any, pred_uncond: Any = None, pred_degraded: Any = None) -> Any:
        """The combined prediction."""
        pred = pred_cond if pred_uncond is None else equations.classifier_free(pred_cond, pred_uncond, self.guidance_scale)
        if pred_degraded is not None:
            pred = pred + equations.away(pred_cond, pred_degraded, _number(self.detail.scale))
        return GuiderOutput(pred=pred, pred_cond=pred_cond, pred_uncond=pred_uncond)

    @property
    def is_conditional(self) -> bool:
        """Whether the current branch is conditional."""
        return bool(self._needed()[max(self._count_prepared, 1) - 1] != UNCOND)

    @property
    def num_conditions(self) -> int:
        """The number of branches."""
        return len(self._needed())

    def _needed(self) -> list[int]:
        inside = self._enabled and self._in_window()
        found = [COND]
        found += [UNCOND] if self._enabled and self.guidance_scale != 1.0 else []
        return found + ([DEGRADED] if inside and self.detail.scale != 0.0 else [])

    def _in_window(self) -> bool:
        if self._num_inference_steps is None or self._step is None:
            return True
        steps = self._num_inference_steps
        return bool(int(self._start * steps) <= self._step < int(self._stop * steps))


def _number(scale: Any) -> float:
    return float(scale)
