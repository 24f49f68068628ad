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
from interp.guidance.degraded import DetailGuidance, PerturbedAttention, SkipLayer
from interp.guidance.guide import Guide
from interp.guidance.method import COND, Combined, Context
from interp.interventions.in_use import in_use, using
from interp.models.anatomy import Anatomy
from interp.models.families import OWN_GUIDANCE
from interp.models.families.pipeline import OwnGuidance
from interp.models.load import anatomy_of, check_traceable
from interp.models.scheduling import watched_steps

ALLOWED = (DetailGuidance, SkipLayer, PerturbedAttention)
ADDING = {
    "skip_guidance_layers": "SkipLayer(blocks=...)",
    "pag_scale": "PerturbedAttention(blocks=...)",
    "control_image": "a pipeline without a ControlNet",
}
"""Arguments with which a pipeline makes rows or calls that `guided` does not know, and what to use in their place."""


@contextlib.contextmanager
def guided(pipe: Any, guidance: Any) -> Iterator[None]:
    """Guide every call of a diffusers pipeline inside, with its own guidance on or off; removes all hooks afterwards.

    `guidance` adds to the pipeline's own: Detail Guidance, skip-layer or perturbed-attention guidance, or a sum of them. Steps
    are the scheduler's: image-to-image begins in the middle of them. Whether the pipeline's own guidance is on, and its scale,
    are read at every call of the transformer, so callbacks may change them. Calls of other pipelines that share the transformer
    are not guided. InputError if no call is made, and after a call without a step in the guidance's window.
    """
    combined = Combined.of(guidance)
    wrong = [
        method.name for method in combined.methods if not isinstance(method, ALLOWED) or getattr(method, "of", COND) != COND
    ]
    if wrong:
        raise InputError(f"guided: {wrong[0]} does not add to a pipeline's own guidance; use dg (of cond), slg or pag")
    if not hasattr(pipe, "transformer"):
        raise InputError(f"guided needs a diffusers pipeline with a transformer; got {type(pipe).__name__}")
    transformer = check_traceable(pipe.transformer)
    anatomy = anatomy_of(pipe)
    if anatomy.model_class not in OWN_GUIDANCE:
        raise InputError(
            f"guided: {type(pipe).__name__} has no known form of its own guidance; give own_guidance to "
            "interp.register_anatomy, or use interp.generate(guidance=...)"
        )
    if "guided" in in_use(transformer):
        raise InputError("guided: this transformer is being guided already; add the guidances up, guided(pipe, a + b)")
    driver = _Added(pipe, anatomy, combined, OWN_GUIDANCE[anatomy.model_class])
    with using(transformer, "guided"), driver.guiding(transformer), _calls_of(pipe, driver):
        yield
    if not driver.drawn:
        raise InputError("guided: the with block made no call of the pipeline; call pipe(...) in it")


@contextlib.contextmanager
def _calls_of(pipe: Any, driver: _Added) -> Iterator[None]:
    """Give the driver the arguments of every call of the pipeline, through a temporary subclass: a scale such as Flux's
    `true_cfg_scale` is available only there.
    """
    kind = type(pipe)
    signature = inspect.signature(kind.__call__)

    def call(self: Any, *given: Any, **named: Any) -> Any:
        bound = signature.bind(self, *given, **named)
        bound.apply_defaults()
        with driver.pipeline_call(bound.arguments):
            return kind.__call__(self, *given, **named)

    pipe.__class__ = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})
    try:
        yield
    finally:
        pipe.__class__ = kind


@contextlib.contextmanager
def _counted_steps(pipe: Any, driver: _Added) -> Iterator[None]:
    """Count the scheduler's steps in a call of the pipeline."""

    def step(original: Callable[..., Any], *given: Any, **named: Any) -> Any:
        result = original(*given, **named)
        driver.taken, driver.made = driver.taken + 1, 0
        return result

    with watched_steps(pipe.scheduler, step):
        yield


class _Added(Guide):
    """Adds to the conditional rows of a pipeline's calls."""

    def __init__(self, pipe: Any, anatomy: Anatomy, guidance: Combined, own: OwnGuidance) -> None:
        super().__init__(anatomy, guidance, {}, lambda step: (0.0, 0.0), parts=own.parts(pipe.transformer))
        self.pipe, self.own, self.transformer = pipe, own, pipe.transformer
        self.arguments: Mapping[str, Any] | None = None
        """Of the call of the pipeline that is under way."""
        self.drawn = self.taken = self.made = 0
        self.performed: set[int] = set()
        self.total = 0

    @contextlib.contextmanager
    def pipeline_call(self, arguments: Mapping[str, Any]) -> Iterator[None]:
        """A call of the pipeline."""
        if self.arguments is not None:
            raise InputError("guided: the pipeline is called while another of its calls is under way; call it one at a time")
        for name, instead in ADDING.items():
            value = arguments.get(name)
            if value is not None and value is not False and not (isinstance(value, int | float) and value == 0):
                raise InputError(f"guided: {name} adds rows or calls of the transformer; use {instead} instead")
        if self.pipe.transformer is not self.transformer:
            raise InputError("guided: the pipeline's transformer was replaced inside the with block; replace it before")
        self.own.scale(arguments)  # refuses what it cannot add to
        self.arguments, self.drawn = arguments, self.drawn + 1
        self.taken = self.made = self.total = 0
        self.performed.clear()
        self.remembered.clear()
        try:
            with _counted_steps(self.pipe, self):
                yield
        finally:
            self.arguments = None
        self._check_acted()

    def _check_acted(self) -> None:
        """Raise InputError if a guidance acted in no step of the call."""
        if not self.performed:
            raise InputError("guided: the call did not reach the transformer; was it interrupted, or the transformer replaced?")
        for method in self.guidance.methods:
            acts = [step for step in range(self.total) if method.acts(step)]
            if acts and not self.performed & set(acts):
                raise InputError(
                    f"guided: {method.name} acted in no step: it is for steps {acts[0]}..{acts[-1]}, and the pipeline ran "
                    f"{min(self.performed)}..{max(self.performed)} of {self.total}; change its steps"
                )

    def _scale(self) -> float | None:
        """The scale of the pipeline's own guidance in this step; `None` where it is off."""
        assert self.arguments is not None
        live = {"guidance_scale": self.pipe.guidance_scale} if self.own.follows else {}
        on = self.pipe.do_classifier_free_guidance if hasattr(type(self.pipe), "do_classifier_free_guidance") else True
        return self.own.scale({**self.arguments, **live}) if on else None

    def _step(self) -> int:
        """The scheduler's index of this step."""
        scheduler = self.pipe.scheduler
        if not self.total:
            self.total = len(scheduler.timesteps)
            self.guidance.check(self.anatomy, self.total)
        return (getattr(scheduler, "begin_index", None) or 0) + self.taken

    def call(self, step: int, bound: dict[str, Any], run: Callable[[dict[str, Any]], Tensor]) -> Tensor:
        """One call of the transformer; a pipeline that runs its branches separately makes two per step."""
        batch = len(bound[self.anatomy.row_inputs[0]])
        if self.arguments is None:  # of another pipeline, or of the transformer itself
            self._begin({COND: slice(0, batch)})
            return run(bound)
        number, scale = self._step(), self._scale()
        second = self.own.rows == "calls" and scale is not None and self.made == 1
        self.made += 1
        self.step = number
        self.performed.add(number)
        branches = self.guidance.branches(number)
        if second or not branches:
            self._begin({COND: slice(0, batch)})
            return run(bound)
        rows = self._conditional(batch, scale)
        self.batch = rows.stop - rows.start
        self._begin({COND: rows}, branches, count=batch)
        output = run(self._widened(bound))
        split = {name: output[place].chunk(self.parts, dim=1)[0] for name, place in self.rows.items()}
        context = Context(number, 0.0, 0.0, True, self.remembered)
        answered, width = output[:batch].clone(), split[COND].shape[1]
        for method in self.guidance.acting(number):
            answered[rows, :width] += method.added(split, context) / (scale or 1.0)
        return answered

    def _conditional(self, batch: int, scale: float | None) -> slice:
        """The conditional rows of a call."""
        if scale is None or self.own.rows == "calls":
            return slice(0, batch)
        return slice(batch // 2, batch) if self.own.rows == "uncond first" else slice(0, batch // 2)
