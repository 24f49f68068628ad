"""Clean runs that experiments start from: a picture, its transformer calls and, on request, states it passed through."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.base.errors import InputError, InterpError, TraceError
from interp.base.plan import Row
from interp.base.sites import Site
from interp.interventions.forks import Calls, around_calls
from interp.interventions.hooks import Driver
from interp.interventions.values import Values
from interp.models.anatomy import Reentry, bind_inputs
from interp.models.families.pipeline import as_bytes, drawn, still
from interp.models.load import check_traceable
from interp.models.quiet import quiet
from interp.tracing.group import pipeline_arguments
from interp.tracing.prepare import Prepared
from interp.tracing.sampler import hook_scheduler

Array = NDArray[Any]


@dataclasses.dataclass
class Clean:
    """One unedited picture and how it came about."""

    row: Row
    calls: Calls
    image: Array
    """(y, x, rgb) uint8."""
    latents: Array
    """The last, float32."""
    states: Mapping[tuple[int, Site], Tensor]
    """By (step, site), on the CPU: (token, channel), or (channel) of a gate."""
    conditioning: Mapping[tuple[int, str, str], Tensor] = dataclasses.field(default_factory=dict)
    """What entered, where it was asked for: by (step, path of the module, argument), (1, ...)."""

    def values(self, steps: Sequence[int], site: Site, source: str, channels: Sequence[int] | None = None) -> Values:
        """Kept states of a site as values for `Replace` or `Transport`, at these steps: all channels, or some."""
        states = [self.states[step, site].float() for step in steps]
        array = np.stack([(state if channels is None else state[..., list(channels)]).numpy() for state in states])
        axes: dict[str, tuple[int, ...]] = {"step": tuple(steps), "block": (site.block,)}
        if array.ndim == 3:
            axes["token"] = tuple(range(array.shape[1]))
        axes["channel"] = tuple(range(array.shape[-1])) if channels is None else tuple(channels)
        return Values(array[:, None], axes, source)


def sample(prepared: Prepared, rows: Sequence[Row], on_step: Callable[[int], None] = lambda step: None) -> tuple[Array, Array]:
    """Call the pipeline once: pictures (row, y, x, rgb) uint8 and last latents (row, ...). A NaN is an error."""
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
        if position in scheduler_hook.not_finite or not np.isfinite(images[position]).all():
            steps = scheduler_hook.not_finite.get(position)
            where = f"the latents, step {steps[0]}" if steps else "the VAE"
            raise TraceError(
                f"NaN or Inf at {where}, prompt {row.index} ({row.text!r}, seed {row.seed}), place {position} of its batch "
                "(float16 overflows easily; try another --dtype)"
            )
    return as_bytes(images), scheduler_hook.latents[0].numpy()


class _Keeper(Driver):
    """Copies states as they pass; edits nothing."""

    def __init__(self, prepared: Prepared, sites: Iterable[tuple[int, Site]]) -> None:
        super().__init__(prepared.model.anatomy, [])
        self.wanted = set(sites)
        self.states: dict[tuple[int, Site], Tensor] = {}

    def concerns(self, site: Site) -> bool:
        """Whether a site is to be kept at this step."""
        return (self.step, site) in self.wanted

    def edit(self, site: Site, value: Tensor) -> Tensor:
        """The value itself."""
        if self.concerns(site):
            self.states[self.step, site] = value[0].detach().to("cpu", copy=True)
        return value


def clean_run(prepared: Prepared, row: Row, keep: Iterable[tuple[int, Site]] = (), *, keep_conditioning: bool = False) -> Clean:
    """Draw one row without edits; `keep` names (step, site) whose states are kept, and on request what blocks and the modules
    after them are conditioned on.
    """
    if prepared.guidance is not None:
        raise InputError("guidance: this experiment compares unguided runs; leave guidance out")
    calls, keeper = Calls(), _Keeper(prepared, keep)
    transformer = prepared.model.pipe.transformer

    def record(step: int, bound: dict[str, Any], run: Any) -> Tensor:
        keeper.step = step
        prediction: Tensor = run(bound)
        calls.arguments.append(bound)
        calls.predictions.append(prediction.detach().clone())
        return prediction

    conditioning: dict[tuple[int, str, str], Tensor] = {}
    handles = keeper.attach(transformer) if keeper.wanted else []
    for path, arguments in _conditioned(prepared) if keep_conditioning else ():
        hook = _keep_arguments(keeper, path, arguments, conditioning)
        handles.append(transformer.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True))
    for reentry in prepared.model.anatomy.reentries if keep_conditioning else ():
        if reentry.argument is None:
            hook = _keep_output(keeper, reentry, conditioning)
            handles.append(transformer.get_submodule(reentry.module).register_forward_hook(hook))
    try:
        with prepared.model.lock, around_calls(transformer, record, prepared.model.anatomy):
            images, latents = sample(prepared, [row])
    finally:
        for handle in handles:
            handle.remove()
    missing = keeper.wanted - keeper.states.keys()
    if missing:
        step, site = min(missing, key=str)
        raise TraceError(f"{site} at step {step} was not met in the clean run of prompt {row.index}")
    return Clean(row, calls, images[0], latents[0], keeper.states, conditioning)


def calls_of(prepared: Prepared, row: Row) -> Calls:
    """What the transformer is told at every step of a row, at the price of one forward: the first prediction stands for all
    later ones, so that of the arguments all but the latents are those of a true run.
    """
    calls = Calls()

    def record(step: int, bound: dict[str, Any], run: Any) -> Tensor:
        prediction: Tensor = run(bound) if not calls.predictions else calls.predictions[0]
        calls.arguments.append(bound)
        calls.predictions.append(prediction.detach().clone())
        return prediction

    with prepared.model.lock, around_calls(prepared.model.pipe.transformer, record, prepared.model.anatomy):
        sample(prepared, [row])
    return calls


def _conditioned(prepared: Prepared) -> list[tuple[str, list[str]]]:
    """Every module that conditioning enters, with the arguments that carry it."""
    anatomy = prepared.model.anatomy
    inside = [
        (block.path, [name for name in block.row_inputs if name not in block.state_inputs.values()]) for block in anatomy.blocks
    ]
    return [*inside, *((one.module, [one.argument]) for one in anatomy.reentries if one.argument is not None)]


def _keep_arguments(keeper: _Keeper, path: str, names: Sequence[str], kept: dict[tuple[int, str, str], Tensor]) -> Any:
    def hook(module: Any, arguments: Any, named: Any) -> None:
        bound = bind_inputs(module, arguments, named)
        kept.update({(keeper.step, path, name): bound[name].detach() for name in names if bound.get(name) is not None})

    return hook


def _keep_output(keeper: _Keeper, reentry: Reentry, kept: dict[tuple[int, str, str], Tensor]) -> Any:
    def hook(module: Any, arguments: Any, output: Any) -> None:
        kept[keeper.step, reentry.module, f"output.{reentry.item}"] = output[reentry.item or 0].detach()

    return hook


def measure(prepared: Prepared, calls: Sequence[dict[str, Any]], sites: Sequence[Site]) -> list[dict[Site, Tensor]]:
    """Single calls of the transformer, one row each, without sampling: the states at `sites`, per call, on the CPU."""
    found = []
    transformer = prepared.model.pipe.transformer
    for bound in calls:
        keeper = _Keeper(prepared, [(0, site) for site in sites])
        handles = keeper.attach(transformer)
        try:
            with prepared.model.lock, torch.no_grad(), quiet():
                transformer(**prepared.model.anatomy.as_called(bound))
        finally:
            for handle in handles:
                handle.remove()
        found.append({site: state for (_, site), state in keeper.states.items()})
    return found
