"""Tiny models with planted massive channels: the correct result of an analysis is known.

At the planted channels of block k, the branch outputs a constant and alpha is

    alpha(t, c) = 1 + spread * (sqrt(share_t) f(t) + sqrt(share_c) g(c))

where f over the run's steps and g over a population of prompts have mean 0 and variance 1. So the channels are massive from
block k on and not before, and the timestep's share of alpha's variance is share_t, with no interaction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interp.base.errors import InputError
from interp.base.sites import as_index
from interp.base.streams import GENERATED
from interp.models import tiny
from interp.models.anatomy import Block, Modulation
from interp.models.catalog import read_yaml
from interp.models.families.schedules import schedule
from interp.models.load import adopt
from interp.models.quiet import quiet
from interp.testing.wiring import deafen, keep_apart, set_branch, silence_text
from interp.tracing.model import Model

CAUSES = ("both", "branch", "alpha")
MEASURED = 8  # of them, at all steps, give the median channel's alpha
POPULATION = 128  # prompts over which text varies
TIMESTEP, TEXT = 0, 1  # components of temb set by one player alone; those after TEXT too, where every channel has its own


@dataclasses.dataclass(frozen=True)
class Plantable:
    """Modules of one family that a plant writes into.

    Conditioning is a sum of embeddings, temb = timestep + text (or class) [+ guidance]. Setting rows of those embeddings to
    zero leaves components of temb that only one input sets.
    """

    embedders: str
    """Module that holds the embeddings: in the transformer or, where every block has its own, in each block."""
    writers: Mapping[str, Mapping[str, str]]
    """Per kind of block and "stream.gate": the last linear layer of the branch, inside the block."""
    in_blocks: bool = False
    text_tokens: str | None = None
    """The linear layer that embeds text tokens; without it, prompts are class numbers."""

    def prompts(self, pipe: Any, draw: np.random.Generator, count: int) -> tuple[str, ...]:
        """Distinct prompts that the model accepts: texts from the tiny tokenizers' words, or class numbers."""
        if self.text_tokens is None:
            return tuple(map(str, draw.choice(pipe.transformer.config.num_embeds_ada_norm, count, replace=False)))
        texts: dict[str, None] = {}
        while len(texts) < count:
            texts[" ".join(draw.choice(tiny.WORDS, int(draw.integers(2, 6))))] = None
        return tuple(texts)

    def conditionings(self, transformer: Any, block_paths: list[str]) -> list[nn.Module]:
        """Every module that embeds timestep and text or class."""
        places = [f"{path}.{self.embedders}" for path in block_paths] if self.in_blocks else [self.embedders]
        return [transformer.get_submodule(place) for place in places]


_DATA = read_yaml(Path(__file__).with_suffix(".yaml"))
PLANTABLE = {family: Plantable(**fields) for family, fields in _DATA.items()}


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
        return tiny.save(self.model.pipe, folder, self.model.defaults)


def plant(
    family: str,
    *,
    channels: Sequence[int] = (5,),
    block: int = 1,
    stream: str = GENERATED,
    gate: str = "mlp",
    strength: float = 50.0,
    spread: float = 0.2,
    timestep_share: float = 0.7,
    carrier: bool = False,
    pattern: float = 0.0,
    by: str = "both",
    seed: int = 0,
    **sizes: Any,
) -> Planted:
    """Build a tiny random model of a family (sd3, flux, dit) with massive channels, in memory.

    `strength` is their size over the block's median channel; `sizes` are those of `interp.models.tiny.build`. With `carrier`,
    the prompt reaches the picture through the planted channels' gate alone, each channel by a number of its own: every other
    path of the text is cut. `pattern` is the standard deviation over tokens of the branch there, over its mean. `by` says what
    makes the channels massive: "branch" (a large output under the median channel's alpha), "alpha" (a large alpha of the median
    channel's output), or "both" (alpha is 1, which is large for a random gate, and so is the output).
    """
    if by not in CAUSES:
        raise InputError(f"by must be one of {', '.join(CAUSES)}; got {by!r}")
    if family not in PLANTABLE:
        raise InputError(f"family must be one of {', '.join(PLANTABLE)}; got {family!r}")
    with quiet():
        pipe, defaults = tiny.make(family, seed=seed, **sizes)
    pipe.set_progress_bar_config(disable=True)
    model = Model(adopt(pipe, f"planted-{family}", defaults=defaults, device="cpu"))
    stream = model.anatomy.stream(stream).name
    _check(model, channels, block, stream, gate, timestep_share)
    described = model.anatomy.blocks[block]
    population = PLANTABLE[family].prompts(pipe, np.random.default_rng([seed, 1]), POPULATION)
    size, level = _levels(model, population, f"block.{block}/{stream}", gate, strength, by)
    with torch.no_grad():
        module = pipe.transformer.get_submodule(described.path)
        writer = module.get_submodule(PLANTABLE[family].writers[described.kind][f"{stream}.{gate}"])
        conditionings = PLANTABLE[family].conditionings(pipe.transformer, [b.path for b in model.anatomy.blocks])
        texts = [TEXT + number * carrier for number in range(len(channels))]
        for embedding in conditionings:
            keep_apart(embedding, TIMESTEP, "timestep")
            for component in texts:
                keep_apart(embedding, component, "text")
        if carrier:
            silence_text(pipe.transformer, conditionings, PLANTABLE[family].text_tokens, texts)
            deafen(model, texts)
        set_branch(model, population[0], f"block.{block}/{stream}/branch.{gate}", writer, list(channels), size / level, pattern)
        chunk = f"alpha.{gate}"
        modulation = next(one for one in described.modulations if one.stream == stream and chunk in one.chunks)
        projection = module.get_submodule(str(modulation.module))
        rows = [modulation.chunks.index(chunk) * model.anatomy.channels + channel for channel in channels]
        _set_alpha(model, described, modulation, projection, rows, texts, population, timestep_share, spread)
        projection.weight[rows] *= level
        projection.bias[rows] *= level
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


def _levels(model: Model, population: Sequence[str], place: str, gate: str, strength: float, by: str) -> tuple[float, float]:
    """The size that is planted, and the mean of alpha that makes it."""
    size = strength * _median(model, population[0], f"{place}/hidden")
    if by == "branch":
        _, cache = model.run_with_cache(list(population[:MEASURED]), f"{place}/alpha.{gate}")
        return size, float(np.mean([np.median(np.abs(np.asarray(one)), axis=-1) for one in cache.values()]))
    return size, size / _median(model, population[0], f"{place}/branch.{gate}") if by == "alpha" else 1.0


def _median(model: Model, prompt: str, site: str) -> float:
    """The median channel's mean |value| at a site, at the first step of one prompt."""
    _, cache = model.run_with_cache(prompt, site, steps=1)
    (found,) = cache.values()
    values = np.abs(np.asarray(found))
    return float(np.median(values.reshape(-1, values.shape[-1]).mean(axis=0)))


def _set_alpha(
    model: Model,
    block: Block,
    modulation: Modulation,
    projection: Any,
    rows: list[int],
    texts: list[int],
    population: tuple[str, ...],
    timestep_share: float,
    spread: float,
) -> None:
    """Set the projection's rows to the planted alpha, row by row, where text is the component in `texts`; first run each player
    alone, unscaled, to measure its mean and size.
    """
    pipe, spec = model.pipe, model.loaded.spec
    layout = spec.layout(pipe, *model.sizes(), settings := model.settings())
    times = schedule(pipe, spec.levels, model.defaults.steps, layout.tokens(layout.generated), settings).timesteps
    assert spec.conditions is not None
    text = spec.conditions(pipe, list(population), settings)

    def alone(component: int, timesteps: Tensor, arguments: dict[str, Any]) -> Tensor:
        projection.weight[rows], projection.bias[rows] = 0.0, 0.0
        projection.weight[rows, component] = 1.0
        assert model.anatomy.conditioning is not None
        given = {model.anatomy.timestep.name: model.anatomy.timestep.given(timesteps), **arguments}
        inputs = model.anatomy.conditioning.inputs(pipe.transformer, given)
        module = pipe.transformer.get_submodule(block.path)
        return modulation.compute(module, inputs)[:, rows[0]].double()

    steps = torch.tensor(times, dtype=torch.float32)
    f = alone(TIMESTEP, steps, {name: value[:1].expand(len(steps), *value.shape[1:]) for name, value in text.items()})
    g = {component: alone(component, steps[:1].expand(len(population)), dict(text)) for component in dict.fromkeys(texts)}
    projection.weight[rows], projection.bias[rows] = 0.0, 1.0
    for row, own in zip(rows, texts, strict=True):
        for component, values, share in ((TIMESTEP, f, timestep_share), (own, g[own], 1 - timestep_share)):
            scale = spread * share**0.5 / values.std(correction=0)
            projection.weight[row, component] = scale.float()
            projection.bias[row] -= (scale * values.mean()).float()


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
