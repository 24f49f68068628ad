"""Detail Guidance on a user's own diffusers pipeline: `with interp.guided(pipe, DetailGuidance.preset("sd3")): pipe(...)`.

The pipeline keeps its own classifier-free guidance, u + s (c - u) with scale s. The conditional rows are replaced by

    c + (w / s) (c - d)

so that the pipeline's formula gives u + s (c - u) + w (c - d), equation 5 of Detail Guidance (arXiv 2510.11538). If its own
guidance is off, they are replaced by c + w (c - d). The row order of a pipeline is defined by its family (`OwnGuidance`).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from interp.base.errors import InputError
from interp.guidance.guide import Guide
from interp.guidance.method import COND, Combined, Context
from interp.guidance.methods import DetailGuidance, PerturbedAttention, SkipLayer
from interp.models.anatomy import Anatomy, describe
from interp.models.families import ANATOMIES, OWN_GUIDANCE
from interp.models.families.pipeline import OwnGuidance
from interp.models.load import check_traceable

ALLOWED = (DetailGuidance, SkipLayer, PerturbedAttention)


@contextlib.contextmanager
def guided(pipe: Any, guidance: Any) -> Iterator[None]:
    """Guide every call of a diffusers pipeline inside, with its own guidance on or off; removes all hooks afterwards.

    `guidance` adds to the pipeline's own: Detail Guidance, skip-layer or perturbed-attention guidance, or a sum of them.
    """
    combined = Combined.of(guidance)
    wrong = [
        method.name for method in combined.methods if not isinstance(method, ALLOWED) or getattr(method, "of", COND) != COND
    ]
    if wrong:
        raise InputError(f"guided: {wrong[0]} does not add to a pipeline's own guidance; use dg (of cond), slg or pag")
    if not hasattr(pipe, "transformer"):
        raise InputError(f"guided needs a diffusers pipeline with a transformer; got {type(pipe).__name__}")
    check_traceable(pipe.transformer)
    anatomy = describe(pipe.transformer, ANATOMIES)
    if anatomy.model_class not in OWN_GUIDANCE:
        raise InputError(
            f"guided: {type(pipe).__name__} has no known form of its own guidance; give own_guidance to "
            "interp.register_anatomy, or use interp.generate(guidance=...)"
        )
    driver = _Added(anatomy, combined, OWN_GUIDANCE[anatomy.model_class], pipe.transformer)
    with driver.guiding(pipe.transformer), _told_of_calls(pipe, driver.begin):
        yield
    if not driver.drawn:
        raise InputError("guided: the with block made no call of the pipeline; call pipe(...) in it")


@contextlib.contextmanager
def _told_of_calls(pipe: Any, begin: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
    """Pass the arguments of every call of the pipeline to `begin`, through a temporary subclass: a scale such as Flux's
    `true_cfg_scale` is available only there.
    """
    kind = type(pipe)
    signature = inspect.signature(kind.__call__)

    def call(self: Any, *given: Any, **named: Any) -> Any:
        bound = signature.bind(self, *given, **named)
        bound.apply_defaults()
        begin(bound.arguments)
        return kind.__call__(self, *given, **named)

    pipe.__class__ = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})
    try:
        yield
    finally:
        pipe.__class__ = kind


class _Added(Guide):
    """Adds to the conditional rows of a pipeline's calls."""

    def __init__(self, anatomy: Anatomy, guidance: Combined, own: OwnGuidance, transformer: Any) -> None:
        super().__init__(anatomy, guidance, {}, lambda step: (0.0, 0.0), parts=own.parts(transformer))
        self.own = own
        self.drawn = self.made = 0
        self.scale: float | None = None

    def begin(self, arguments: Mapping[str, Any]) -> None:
        """Check and note the arguments of a call of the pipeline."""
        self.guidance.check(self.anatomy, int(arguments["num_inference_steps"]))
        if arguments.get("skip_guidance_layers"):
            raise InputError("guided: skip_guidance_layers adds calls of the transformer; use SkipLayer(blocks=...) instead")
        self.scale = self.own.scale(arguments)
        self.drawn, self.made = self.drawn + 1, 0

    def call(self, step: int, bound: dict[str, Any], run: Callable[[dict[str, Any]], Tensor]) -> Tensor:
        """One call of the transformer; a pipeline that runs its branches separately makes two per step."""
        two_calls = self.own.rows == "calls" and self.scale is not None
        number, second = divmod(self.made, 2) if two_calls else (self.made, 0)
        self.made += 1
        self.step = number
        batch = len(bound[self.anatomy.row_inputs[0]])
        branches = self.guidance.branches(number)
        if second or not branches:
            self._begin({COND: slice(0, batch)})
            return run(bound)
        rows = self._conditional(batch)
        self.batch = rows.stop - rows.start
        self._begin({COND: rows}, branches, count=batch)
        output = run(self._widened(bound))
        split = {name: output[place].chunk(self.parts, dim=1)[0] for name, place in self.rows.items()}
        context = Context(number, 0.0, 0.0, True, self.remembered)
        answered, width = output[:batch].clone(), split[COND].shape[1]
        for method in self.guidance.acting(number):
            answered[rows, :width] += method.added(split, context) / (self.scale or 1.0)
        return answered

    def _conditional(self, batch: int) -> slice:
        """The conditional rows of a call."""
        if self.scale is None or self.own.rows == "calls":
            return slice(0, batch)
        return slice(batch // 2, batch) if self.own.rows == "uncond first" else slice(0, batch // 2)
