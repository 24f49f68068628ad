"""Pipeline calls of an experiment: pictures, clean runs with their transformer calls and states, and single forward passes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.base.errors import InputError, InterpError, TraceError
from interp.base.plan import Row
from interp.base.sites import Site
from interp.interventions.forks import Around, Calls, around_calls
from interp.interventions.hooks import Driver, edited
from interp.interventions.in_use import running
from interp.interventions.selection import Values
from interp.models import autoencoder, noise
from interp.models.anatomy import Reentry, bind_inputs
from interp.models.families.outputs import as_bytes, drawn, still
from interp.models.load import check_traceable
from interp.models.quiet import quiet
from interp.tracing.group import pipeline_arguments
from interp.tracing.prepare import Prepared
from interp.tracing.sampler import hook_scheduler

Array = NDArray[Any]
Conditioning = dict[tuple[int, str, str], Tensor]
"""By (step, path of the module, argument): (1, ...)."""
OnStep = Callable[[int], None]


@dataclasses.dataclass
class Clean:
    """An unedited run of one sample."""

    row: Row
    calls: Calls
    image: Array
    """(y, x, rgb) uint8."""
    latents: Array
    """After the last step, float32."""
    states: Mapping[tuple[int, Site], Tensor]
    """By (step, site), on the CPU: (token, channel), or (channel) of a gate."""
    conditioning: Conditioning = dataclasses.field(default_factory=dict)
    """Conditioning inputs of the blocks and of the modules after them, if `clean_run` kept them."""

    def values(self, steps: Sequence[int], sites: Sequence[Site], source: str, channels: Sequence[int] | None = None) -> Values:
        """Kept states of sites, one per block, as values for `Replace` or `Transport`; `channels` of `None` are all."""
        kept = slice(None) if channels is None else list(channels)
        array = np.array([[self.states[step, site][..., kept].float().numpy() for site in sites] for step in steps])
        axes = {"step": tuple(steps), "block": tuple(site.block for site in sites)}
        if array.ndim == 4:
            axes["token"] = tuple(range(array.shape[2]))
        axes["channel"] = tuple(range(array.shape[-1])) if channels is None else tuple(channels)
        return Values(array, axes, source)


def sample(prepared: Prepared, rows: Sequence[Row], on_step: OnStep = lambda step: None) -> tuple[Array, Array]:
    """Call the pipeline once, without the run's edits and guidance.

    Returns pictures (row, y, x, rgb) uint8 and last latents (row, ...). A NaN or Inf raises TraceError.
    """
    model = prepared.model
    check_traceable(model.pipe.transformer)
    try:
        with hook_scheduler(model.pipe, keep_all=False, on_step=on_step) as scheduler_hook, quiet(), torch.no_grad():
            output = model.pipe(**pipeline_arguments(model, prepared.plan, rows))
    except InterpError:
        raise
    except Exception as error:
        raise TraceError(f"the pipeline failed on {rows[0].text[:40]!r}: {type(error).__name__}: {error}") from error
    images = np.stack([still(picture) for picture in drawn(output)])
    for position, row in enumerate(rows):
        steps = scheduler_hook.not_finite(position)
        if steps or not np.isfinite(images[position]).all():
            where = f"the latents, step {steps[0]}" if steps else "the VAE"
            raise TraceError(
                f"NaN or Inf at {where}, prompt {row.index} ({row.text!r}, seed {row.seed}), place {position} of its batch "
                "(float16 overflows easily; try another --dtype)"
            )
    return as_bytes(images), scheduler_hook.latents[0].numpy()


def guided_sample(
    prepared: Prepared, rows: Sequence[Row], on_step: OnStep = lambda step: None, *, sequential: bool = False
) -> tuple[Array, Array]:
    """Call the pipeline once, with the run's edits and guidance as torch hooks; returns what `sample` returns.

    `sequential` runs the guidance's branches one after the other.
    """
    model, guide = prepared.model, prepared.guide(sequential=sequential)
    with running(model), contextlib.ExitStack() as hooks:
        if prepared.interventions:
            hooks.enter_context(edited(model, prepared.interventions))
        if guide is not None:
            hooks.enter_context(guide.guiding(model.pipe.transformer))
        return sample(prepared, rows, on_step)


@contextlib.contextmanager
def recording(prepared: Prepared, predict: Around) -> Iterator[Calls]:
    """Record the transformer's calls inside. `predict` returns the prediction of each; it may call the transformer."""
    calls = Calls()

    def record(step: int, bound: dict[str, Any], run: Any) -> Tensor:
        prediction = predict(step, bound, run)
        calls.arguments.append(bound)
        calls.predictions.append(prediction.detach().clone())
        return prediction

    with prepared.model.lock, around_calls(prepared.model.pipe.transformer, record, prepared.model.anatomy):
        yield calls


class _Keeper(Driver):
    """Copies states and conditioning; edits nothing."""

    def __init__(self, prepared: Prepared, sites: Iterable[tuple[int, Site]], *, keep_conditioning: bool = False) -> None:
        super().__init__(prepared.model.anatomy, [])
        self.wanted, self.keep_conditioning = set(sites), keep_conditioning
        self.states: dict[tuple[int, Site], Tensor] = {}
        self.conditioning: Conditioning = {}

    def concerns(self, site: Site) -> bool:
        """Whether to keep a site at this step."""
        return (self.step, site) in self.wanted

    def edit(self, site: Site, value: Tensor) -> Tensor:
        """Return the value unchanged."""
        if self.concerns(site):
            self.states[self.step, site] = value[0].detach().to("cpu", copy=True)
        return value

    @contextlib.contextmanager
    def keeping(self, transformer: Any) -> Iterator[None]:
        """Keep the states of the calls inside."""
        with contextlib.ExitStack() as hooks:
            handles = self.attach(transformer) if self.wanted else []
            for handle in handles + (self._attach_conditioning(transformer) if self.keep_conditioning else []):
                hooks.callback(handle.remove)
            yield

    def _attach_conditioning(self, transformer: Any) -> list[Any]:
        """Register hooks on every module that conditioning enters."""
        handles = []
        inputs = {block.path: set(block.row_inputs) - set(block.state_inputs.values()) for block in self.anatomy.blocks}
        for reentry in self.anatomy.reentries:
            if reentry.argument is not None:
                inputs.setdefault(reentry.module, set()).add(reentry.argument)
            else:
                hook = functools.partial(self._keep_output, reentry)
                handles.append(transformer.get_submodule(reentry.module).register_forward_hook(hook))
        for path, names in inputs.items():
            before = functools.partial(self._keep_arguments, path, names)
            handles.append(transformer.get_submodule(path).register_forward_pre_hook(before, with_kwargs=True))
        return handles

    def _keep_arguments(self, path: str, names: Iterable[str], module: Any, arguments: Any, named: Any) -> None:
        bound = bind_inputs(module, arguments, named)
        kept = {(self.step, path, name): bound[name].detach() for name in names if bound.get(name) is not None}
        self.conditioning.update(kept)

    def _keep_output(self, reentry: Reentry, module: Any, arguments: Any, output: Any) -> None:
        self.conditioning[self.step, reentry.module, f"output.{reentry.item}"] = output[reentry.item or 0].detach()


def clean_run(prepared: Prepared, row: Row, keep: Iterable[tuple[int, Site]] = (), *, keep_conditioning: bool = False) -> Clean:
    """Run one sample without edits.

    `keep` lists the (step, site) states to keep; `keep_conditioning` also keeps the conditioning inputs of the blocks and of
    the modules after them.
    """
    if prepared.guidance is not None:
        raise InputError("guidance: this experiment compares unguided runs; leave guidance out")
    keeper = _Keeper(prepared, keep, keep_conditioning=keep_conditioning)

    def predict(step: int, bound: dict[str, Any], run: Any) -> Tensor:
        keeper.step = step
        prediction: Tensor = run(bound)
        return prediction

    with keeper.keeping(prepared.model.pipe.transformer), recording(prepared, predict) as calls:
        images, latents = sample(prepared, [row])
    missing = keeper.wanted - keeper.states.keys()
    if missing:
        step, site = min(missing, key=str)
        raise TraceError(f"{site} at step {step} was not met in the clean run of prompt {row.index}")
    return Clean(row, calls, images[0], latents[0], keeper.states, keeper.conditioning)


def calls_of(prepared: Prepared, row: Row) -> Calls:
    """The transformer's arguments at every step of a sample, for the cost of one forward pass.

    The first prediction is used at every step, so all arguments but the latents are those of a real run.
    """

    def predict(step: int, bound: dict[str, Any], run: Any) -> Tensor:
        prediction: Tensor = calls.predictions[0] if calls.predictions else run(bound)
        return prediction

    with recording(prepared, predict) as calls:
        sample(prepared, [row])
    return calls


def measure(prepared: Prepared, calls: Sequence[dict[str, Any]], sites: Sequence[Site]) -> list[dict[Site, Tensor]]:
    """Call the transformer alone, one row per call: the states at `sites` of each call, on the CPU."""
    found = []
    transformer = prepared.model.pipe.transformer
    for bound in calls:
        keeper = _Keeper(prepared, [(0, site) for site in sites])
        with keeper.keeping(transformer), prepared.model.lock, torch.no_grad(), quiet():
            transformer(**prepared.model.anatomy.as_called(bound))
        found.append({site: state for (_, site), state in keeper.states.items()})
    return found


def encode(prepared: Prepared, picture: Array) -> Tensor:
    """Encode a picture, (y, x, rgb) uint8, to the scheduler's latents, (1, ...)."""
    model = prepared.model
    return autoencoder.encode(model.pipe, model.loaded.spec, torch.from_numpy(picture[None] / 255.0).float())


def noised(prepared: Prepared, latents: Tensor, unit: Tensor, step: int) -> Tensor:
    """Clean latents at a step's noise level, with `unit` noise, on its device and in its dtype; all (1, ...). What `unit`, an
    argument of the transformer, holds besides the latents stays as it is.
    """
    model, level, span = prepared.model, float(prepared.schedule.sigmas[step]), prepared.layout.span()
    own = unit[:, span]
    clean = latents.to(unit.device, unit.dtype) / model.loaded.spec.levels.flow_size(model.pipe)
    found = noise.noised(prepared.layout.prediction, clean, own, level)
    return found if own.shape == unit.shape else torch.cat([unit[:, : span.start], found, unit[:, span.stop :]], dim=1)


def without(state: Tensor, channels: Sequence[int]) -> Tensor:
    """A copy of a state, (token, channel), with channels set to zero."""
    cut = state.clone()
    cut[:, list(channels)] = 0.0
    return cut
