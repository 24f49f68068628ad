"""Tiny models with planted massive channels: the correct result of an analysis is known.

At the planted channels of block k, the branch outputs a constant and alpha is

    alpha(t, c) = 1 + spread * (sqrt(share_t) f(t) + sqrt(share_c) g(c))

where f over the run's steps and g over a population of prompts have mean 0 and variance 1. So the channels are massive from
block k on and not before, and the timestep's share of alpha's variance is share_t, with no interaction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.base.errors import InputError
from interp.base.sites import as_index
from interp.models import components, tiny
from interp.models.anatomy import Block, Modulation
from interp.models.catalog import write_defaults
from interp.models.families.pipeline import schedule
from interp.models.load import adopt
from interp.models.plantable import PLANTABLE, deafen, keep_apart, silence_text
from interp.models.quiet import quiet
from interp.tracing.model import Model

POPULATION = 128  # prompts over which text varies
TIMESTEP, TEXT = 0, 1  # components of temb set by one player alone


@dataclasses.dataclass(frozen=True)
class Planted:
    """A model and its known properties."""

    model: Model
    channels: tuple[int, ...]
    block: int
    """The first block with massive channels; all later ones have them too."""
    streams: tuple[str, ...]
    """The streams in which they are massive: both when they share the gate."""
    gate: str
    strength: float
    """Size of the channels over the block's median channel."""
    spread: float
    """Standard deviation of alpha over steps and prompts; its mean is 1."""
    timestep_share: float
    """Share of alpha's variance over the model's default steps and `population`; the rest is the text's."""
    population: tuple[str, ...]

    @property
    def text_share(self) -> float:
        """Share of alpha's variance."""
        return 1.0 - self.timestep_share

    def prompts(self, count: int, seed: int = 0) -> list[str]:
        """Different prompts drawn from the population."""
        draw = np.random.default_rng(seed)
        return [self.population[i] for i in draw.choice(len(self.population), count, replace=False)]

    def save(self, folder: str | Path) -> Path:
        """Write the model as a diffusers folder for `interp.load` and `--model`."""
        folder = Path(folder)
        with quiet():
            self.model.pipe.save_pretrained(folder, safe_serialization=True)
            components.tidy_configs(folder)
        write_defaults(folder, self.model.defaults)
        return folder


def plant(
    family: str,
    *,
    channels: Sequence[int] = (5,),
    block: int = 1,
    stream: str = "image",
    gate: str = "mlp",
    strength: float = 50.0,
    spread: float = 0.2,
    timestep_share: float = 0.7,
    carrier: bool = False,
    seed: int = 0,
    **sizes: Any,
) -> Planted:
    """Build a tiny random model of a family (sd3, flux, dit) with massive channels, in memory.

    `strength` is their size over the block's median channel; `sizes` are those of `interp.models.tiny.build`. With `carrier`,
    the prompt reaches the picture through the planted channels' gate alone: every other path of the text is cut.
    """
    if family not in PLANTABLE:
        raise InputError(f"family must be one of {', '.join(PLANTABLE)}; got {family!r}")
    with quiet():
        pipe, defaults = tiny.make(family, seed=seed, **sizes)
    pipe.set_progress_bar_config(disable=True)
    model = Model(adopt(pipe, f"planted-{family}", defaults=defaults, device="cpu"))
    _check(model, channels, block, stream, gate, timestep_share)
    described = model.anatomy.blocks[block]
    population = PLANTABLE[family].prompts(pipe, np.random.default_rng([seed, 1]), POPULATION)
    _, cache = model.run_with_cache(population[0], f"block.{block}/{stream}/hidden", steps=1)
    size = strength * float(np.median(np.abs(cache["hidden", block, stream].to_numpy()).mean(axis=(0, 1, 2))))
    with torch.no_grad():
        module = pipe.transformer.get_submodule(described.path)
        writer = module.get_submodule(PLANTABLE[family].writers[described.kind][f"{stream}.{gate}"])
        conditionings = PLANTABLE[family].conditionings(pipe.transformer, [b.path for b in model.anatomy.blocks])
        for embedding in conditionings:
            keep_apart(embedding, TIMESTEP, "timestep")
            keep_apart(embedding, TEXT, "text")
        if carrier:
            silence_text(pipe.transformer, conditionings, PLANTABLE[family].text_tokens, TEXT)
            deafen(pipe.transformer, _projections(model), TEXT)
        for channel in channels:
            writer.weight[channel], writer.bias[channel] = 0.0, size
        modulation, number = _gate(described, stream, gate)
        projection = module.get_submodule(str(modulation.module))
        rows = [number * model.anatomy.channels + channel for channel in channels]
        _set_alpha(model, described, modulation, projection, rows, population, timestep_share, spread)
    return Planted(
        model=model,
        channels=tuple(sorted(channels)),
        block=block,
        streams=(stream, *modulation.shared_with),
        gate=gate,
        strength=strength,
        spread=spread,
        timestep_share=timestep_share,
        population=population,
    )


def _set_alpha(
    model: Model,
    block: Block,
    modulation: Modulation,
    projection: Any,
    rows: list[int],
    population: tuple[str, ...],
    timestep_share: float,
    spread: float,
) -> None:
    """Set the projection's rows to the planted alpha; first run each player alone, unscaled, to measure its mean and size."""
    pipe, spec = model.pipe, model.loaded.spec
    settings = model.settings()
    times = schedule(pipe, spec, model.defaults.steps, spec.layout(pipe, *model.sizes(), settings)).timesteps
    assert spec.conditions is not None
    text = spec.conditions(pipe, list(population), settings)

    def alone(component: int, timesteps: Tensor, arguments: dict[str, Any]) -> Tensor:
        projection.weight[rows], projection.bias[rows] = 0.0, 0.0
        projection.weight[rows, component] = 1.0
        assert model.anatomy.conditioning is not None
        given = {model.anatomy.timestep: timesteps / model.anatomy.timestep_scale, **arguments}
        inputs = model.anatomy.conditioning.inputs(pipe.transformer, given)
        module = pipe.transformer.get_submodule(block.path)
        return modulation.compute(module, inputs)[:, rows[0]].double()

    steps = torch.tensor(times, dtype=torch.float32)
    f = alone(TIMESTEP, steps, {name: value[:1].expand(len(steps), *value.shape[1:]) for name, value in text.items()})
    g = alone(TEXT, steps[:1].expand(len(population)), dict(text))
    projection.weight[rows], projection.bias[rows] = 0.0, 1.0
    for component, values, share in ((TIMESTEP, f, timestep_share), (TEXT, g, 1 - timestep_share)):
        scale = spread * share**0.5 / values.std(correction=0)
        projection.weight[rows, component] = scale.float()
        projection.bias[rows] -= (scale * values.mean()).float()


def _projections(model: Model) -> list[str]:
    """Every module that projects the conditioning, in the blocks and after them."""
    inside = [f"{block.path}.{modulation.module}" for block in model.anatomy.blocks for modulation in block.modulations]
    return [*inside, *(reentry.module for reentry in model.anatomy.reentries)]


def _gate(block: Block, stream: str, gate: str) -> tuple[Modulation, int]:
    """The AdaLN projection that holds a gate, and the gate's chunk in it."""
    chunk = f"alpha.{gate}"
    return next((m, m.chunks.index(chunk)) for m in block.modulations if m.stream == stream and chunk in m.chunks)


def _check(model: Model, channels: Sequence[int], block: int, stream: str, gate: str, share: float) -> None:
    anatomy = model.anatomy
    for field, values, count in (("channels", channels, anatomy.channels), ("block", [block], len(anatomy.blocks))):
        wrong = [value for value in values if as_index(value) is None or not 0 <= value < count]
        if wrong:
            raise InputError(f"{field} must lie in 0..{count - 1}; got {wrong[0]!r}")
    if not channels or len(set(channels)) != len(channels):
        raise InputError(f"channels must be one or more, each once; got {list(channels)}")
    places = PLANTABLE[anatomy.family].writers[anatomy.blocks[block].kind]
    gated = {f"{m.stream}.{c.split('.')[1]}" for m in anatomy.blocks[block].modulations for c in m.chunks if "alpha" in c}
    possible = [place for place in places if place in gated]
    if f"{stream}.{gate}" not in possible:
        raise InputError(f"stream and gate must be one of {', '.join(possible)} in block {block}; got {stream}.{gate}")
    if not 0.0 <= share <= 1.0:
        raise InputError(f"timestep_share must lie in 0..1; got {share!r}")
