"""Descriptors of image tokens from one call of the transformer, and what corresponds by them. After DiTF (arXiv 2505.18584).

DiTF takes the state that enters a block, sets the massive channels to zero, and applies the block's own AdaLN:

    descriptor = (1 + scale) LayerNorm(z without the massive channels) + shift

Here beside the state itself, without either step, and with as many random ordinary channels discarded. The picture is encoded
by the model's autoencoder and brought to the noise level of a sampling step, every picture with noise of its own: two pictures
under one noise correspond by that noise, a token with the same place of the other picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from interp.base.errors import InputError, ModelError
from interp.base.options import Sampling, split
from interp.base.plan import Record
from interp.base.sites import Site, parse_indices, resolve_indices
from interp.experiments.clean import Array, calls_of, measure
from interp.models import autoencoder, noise
from interp.models.anatomy import Block
from interp.models.catalog import CATALOG
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, as_settings, prepare

PLAIN = ("raw", "raw_discard", "adaln", "adaln_discard")
KINDS = (*PLAIN, "raw_control", "adaln_control")
DRAWS = 3  # of the control's channels


@dataclasses.dataclass(frozen=True)
class ChannelPreset:
    """What DiTF publishes for a model."""

    channels: tuple[int, ...]
    block: int | None
    """The block whose input is taken; `None` where none is given."""


PRESETS: Mapping[str, ChannelPreset] = {
    "flux": ChannelPreset((154, 1446), 28),
    "flux-schnell": ChannelPreset((154, 1446), 28),
    "flux-dedistilled": ChannelPreset((154, 1446), 28),
    "sd3.5": ChannelPreset((676,), None),
}
"""Of DiTF's code (FLUX.1's two channels and block 28 of 57, counted through; SD3.5's one). It says Flux and names no variant:
the three that descend from one training are given the same.
"""


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A model ready to describe pictures: one call of its transformer each."""

    prepared: Prepared
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    steps: tuple[int, ...]
    seed: int = 0

    def sites(self) -> list[Site]:
        """The states that enter the blocks, and their AdaLN shift and scale."""
        entering = [Site(block - 1, "image", "hidden") for block in self.blocks]
        return [*entering, *(Site(block, "image", kind, "attn") for block in self.blocks for kind in ("shift", "scale"))]

    def describe(self, picture: Array, prompt: int, draw: int = 0) -> dict[tuple[int, int], dict[str, Array]]:
        """Descriptors of a picture, (y, x, rgb) uint8, told the plan's prompt of that number: by (step, block), then kind,
        (token, channel); of the controls, (draw, token, channel). `draw` numbers the noise, which is the same at all levels.
        """
        told = calls_of(self.prepared, self.prepared.plan.rows()[prompt])
        calls = [self._call(told.arguments, step, picture, draw) for step in self.steps]
        states = measure(self.prepared, calls, self.sites())
        return {
            (step, block): self._kinds(here, block)
            for step, here in zip(self.steps, states, strict=True)
            for block in self.blocks
        }

    def _call(self, told: Sequence[dict[str, Any]], step: int, picture: Array, draw: int) -> dict[str, Any]:
        """The transformer's arguments for a picture at a step's level."""
        model, name = self.prepared.model, self.prepared.model.anatomy.row_inputs[0]
        start = told[0][name]
        plan = self.prepared.plan
        if picture.shape[:2] != (plan.height, plan.width):
            raise InputError(
                f"pictures must be {plan.height} x {plan.width} pixels, what the model draws here; got {picture.shape[0]} x "
                f"{picture.shape[1]}"
            )
        latents = autoencoder.encode(model.pipe, model.loaded.spec, torch.from_numpy(picture[None] / 255.0).float())
        sigma = float(self.prepared.schedule.sigmas[step])
        source = torch.Generator().manual_seed(int(np.random.default_rng([self.seed, draw]).integers(2**62)))
        unit = torch.randn(start.shape, generator=source).to(start.device, start.dtype)
        level = noise.noised(self.prepared.layout.prediction, latents.to(start.device, start.dtype), unit, sigma)
        return {**told[step], name: level}

    def _kinds(self, states: Mapping[Site, Tensor], block: int) -> dict[str, Array]:
        state = states[Site(block - 1, "image", "hidden")].float()
        shift, scale = (states[Site(block, "image", kind, "attn")].float() for kind in ("shift", "scale"))
        norm, transformer = norm_of(self.prepared.model, block), self.prepared.model.pipe.transformer
        device, dtype = transformer.device, transformer.dtype

        def modulated(values: Tensor) -> Array:
            with torch.no_grad():
                normed = norm(values[None].to(device, dtype))[0].float().cpu()
            return np.asarray((1 + scale) * normed + shift)

        others = [without(state, chosen) for chosen in self.controls(state.shape[-1])]
        return {
            "raw": state.numpy(),
            "raw_discard": without(state, self.channels).numpy(),
            "raw_control": np.stack([other.numpy() for other in others]),
            "adaln": modulated(state),
            "adaln_discard": modulated(without(state, self.channels)),
            "adaln_control": np.stack([modulated(other) for other in others]),
        }

    def controls(self, count: int) -> list[tuple[int, ...]]:
        """As many random ordinary channels, several draws."""
        others = np.setdiff1d(np.arange(count), self.channels)
        draws = [np.random.default_rng([self.seed, n]).choice(others, len(self.channels), replace=False) for n in range(DRAWS)]
        return [tuple(int(channel) for channel in drawn) for drawn in draws]


def without(state: Tensor, channels: Sequence[int]) -> Tensor:
    """A state, (token, channel), with channels set to zero."""
    cut = state.clone()
    cut[:, list(channels)] = 0.0
    return cut


def described(model: Model, block: int) -> None:
    """An error for a block whose image state no LayerNorm, scale and shift make what attention reads."""
    norm_of(model, block)
    sites = {str(site) for site in model.anatomy.sites()}
    missing = [kind for kind in ("scale", "shift") if f"block.{block}/image/{kind}.attn" not in sites]
    if missing:
        raise ModelError(
            f"block {block} has no AdaLN {missing[0]}, which these descriptors are made with: {model.name} has none"
        )


def norm_of(model: Model, block: int) -> Any:
    """The LayerNorm that a block applies to the image state it is given, without weights of its own."""
    described: Block = model.anatomy.blocks[block]
    own = [norm for norm in described.norms if "image" in norm.streams]
    if not own:
        raise ModelError(
            f"block {block} ({described.kind}) has no LayerNorm without weights on its image state, which descriptors need"
        )
    return model.pipe.transformer.get_submodule(f"{described.path}.{own[0].module}")


def extractor(
    model: Model,
    prompts: Sequence[str],
    *,
    channels: Sequence[int] | str,
    blocks: Sequence[int] | str | None = None,
    steps_at: Sequence[int] | str | None = None,
    sampling: Sampling | None = None,
    **given: Any,
) -> Extractor:
    """Prepare descriptors. `blocks` are those whose input is taken (1 or later; by default all); `steps_at` sampling steps to
    whose noise level pictures are brought, by default the middle one; `given` are fields of the sampling.
    """
    drawn = sampling if sampling is not None else split(given, Sampling, of="extractor")[0]
    still = autoencoder.still_settings(model.pipe, model.loaded.spec)
    drawn = dataclasses.replace(drawn, settings={**as_settings(drawn.settings), **still})
    prepared = prepare(model, list(prompts), drawn, record=Record(stats=False, gates=False))
    count, steps = len(model.anatomy.blocks), len(prepared.schedule.timesteps)
    wanted = resolve_indices(range(1, count) if blocks is None else parse_indices(blocks, "blocks"), count, "blocks")
    if 0 in wanted:
        raise InputError("blocks must be 1 or later: what enters block 0 is the embedding, which no channel is massive in yet")
    for block in wanted:
        described(model, block)
    at = resolve_indices((steps // 2,) if steps_at is None else parse_indices(steps_at, "steps_at"), steps, "steps_at")
    chosen = resolve_indices(parse_indices(channels, "channels"), model.anatomy.channels, "channels")
    if 2 * len(chosen) > model.anatomy.channels:
        raise InputError(f"channels must be at most half of {model.anatomy.channels}; got {len(chosen)}")
    return Extractor(prepared, chosen, wanted, at, prepared.plan.seed)


def extract(model: Model, pictures: Array, prompts: Sequence[str], **given: Any) -> xr.Dataset:
    """Descriptors of pictures, (picture, y, x, rgb) uint8, each told its prompt; `given` are arguments of `extractor`.

    descriptors     (kind, picture, step, block, token_y, token_x, channel), float32; kinds are `PLAIN`
    """
    if len(pictures) != len(prompts) or not len(pictures):
        raise InputError(f"prompts must be one for each picture, one or more; got {len(prompts)} for {len(pictures)} pictures")
    texts = list(dict.fromkeys(prompts))
    made = extractor(model, texts, **given)
    found = [made.describe(one, texts.index(text), n) for n, (one, text) in enumerate(zip(pictures, prompts, strict=True))]
    values = [[[[one[step, block][kind] for block in made.blocks] for step in made.steps] for one in found] for kind in PLAIN]
    array = np.array(values, np.float32)
    dims = ("kind", "picture", "step", "block", "token_y", "token_x", "channel")
    coordinates = {"kind": np.array(PLAIN, object), "step": list(made.steps), "block": list(made.blocks)}
    told = {"prompt_text": ("picture", np.array(prompts, object))}
    return xr.Dataset(
        {"descriptors": (dims, array.reshape(*array.shape[:4], *made.prepared.layout.image_grid, array.shape[-1]))},
        {**coordinates, **told},
        {"model": model.name, "weights": made.prepared.plan.weights, "channels": list(made.channels), "seed": made.seed},
    )


def default_channels(model: Model) -> list[int]:
    """DiTF's channels of a model, or those that the catalog says are massive in it."""
    if model.name in PRESETS:
        return list(PRESETS[model.name].channels)
    entry = CATALOG.get(model.name)
    if entry is None or entry.massive is None:
        raise InputError(f"channels must be given for {model.name}: --channels 1,2 (`interp massive` finds them)")
    return list(entry.massive.channels)


def default_blocks(model: Model) -> list[int] | None:
    """DiTF's block, or all."""
    preset = PRESETS.get(model.name)
    return [preset.block] if preset is not None and preset.block is not None else None
