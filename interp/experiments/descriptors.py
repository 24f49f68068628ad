"""Descriptors of image tokens from one call of the transformer, and what corresponds by them. After DiTF (arXiv 2505.18584).

DiTF takes the state that enters a block, sets the massive channels to zero, and applies the block's own AdaLN:

    descriptor = (1 + scale) LayerNorm(z without the massive channels) + shift

Controls: the state without either step, and with the same number of random ordinary channels zeroed instead. The model's
autoencoder encodes the picture, and noise brings it to the level of a sampling step. Every picture has its own noise: with the
same noise, tokens at the same place of two pictures would match by the noise alone.
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
from interp.base.options import Sampling, as_settings, split
from interp.base.plan import Record
from interp.base.sites import Site, parse_indices, resolve_indices
from interp.experiments.clean import Array, calls_of, encode, measure, noised, without
from interp.experiments.ranking import draw_channels
from interp.models import autoencoder
from interp.models.anatomy import Block
from interp.models.catalog import CATALOG
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

PLAIN = ("raw", "raw_discard", "adaln", "adaln_discard")
KINDS = (*PLAIN, "raw_control", "adaln_control")
DRAWS = 3  # random sets of control channels


PRESETS: Mapping[str, tuple[tuple[int, ...], int | None]] = {
    "flux": ((154, 1446), 28),
    "flux-schnell": ((154, 1446), 28),
    "flux-dedistilled": ((154, 1446), 28),
    "sd3.5": ((676,), None),
}
"""Channels that DiTF publishes for a model, and the block that receives the described state; `None` if it names none.

From its code: two channels and block 28 of 57 (a global index) for FLUX.1, one channel for SD3.5. The code says Flux and
names no variant, so the three variants from one training have the same preset.
"""


@dataclasses.dataclass(frozen=True)
class Extractor:
    """Computes descriptors of pictures with one transformer call per picture and step."""

    prepared: Prepared
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    steps: tuple[int, ...]
    seed: int = 0

    def sites(self) -> list[Site]:
        """The input states of the blocks, and the blocks' AdaLN shift and scale."""
        stream = self.prepared.model.anatomy.generated.name
        entering = [Site(block - 1, stream, "hidden") for block in self.blocks]
        return [*entering, *(Site(block, stream, kind, "attn") for block in self.blocks for kind in ("shift", "scale"))]

    def describe(self, picture: Array, prompt: int, draw: int = 0, noises: int = 1) -> dict[tuple[int, int], dict[str, Array]]:
        """Descriptors of a picture, (y, x, rgb) uint8, with the prompt of that index as conditioning; mean of several noises.

        By (step, block), then by kind: (token, channel); controls (draw, token, channel). `draw` selects the noises, which are
        the same at all levels.
        """
        conditioned = calls_of(self.prepared, self.prepared.plan.rows()[prompt]).arguments
        found: dict[tuple[int, int], dict[str, Array]] = {}
        for number in range(noises):
            source = (draw, number) if number else (draw,)
            calls = [self._call(conditioned, step, picture, source) for step in self.steps]
            for step, here in zip(self.steps, measure(self.prepared, calls, self.sites()), strict=True):
                for block in self.blocks:
                    kinds, before = self._kinds(here, block), found.get((step, block))
                    found[step, block] = {
                        kind: value / noises if before is None else before[kind] + value / noises
                        for kind, value in kinds.items()
                    }
        return found

    def _call(self, arguments: Sequence[dict[str, Any]], step: int, picture: Array, draw: tuple[int, ...]) -> dict[str, Any]:
        """The transformer's arguments for a picture at a step's noise level."""
        plan, name = self.prepared.plan, self.prepared.model.anatomy.row_inputs[0]
        start = arguments[0][name]
        if picture.shape[:2] != (plan.height, plan.width):
            raise InputError(
                f"pictures must be {plan.height} x {plan.width} pixels, what the model draws here; got {picture.shape[0]} x "
                f"{picture.shape[1]}"
            )
        source = torch.Generator().manual_seed(int(np.random.default_rng([self.seed, *draw]).integers(2**62)))
        latents = encode(self.prepared, picture)
        unit = torch.randn(latents.shape, generator=source).to(start.device, start.dtype)
        unit = torch.cat([unit, start[:, latents.shape[1] :]], dim=1)
        return {**arguments[step], name: noised(self.prepared, latents, unit, step)}

    def _kinds(self, states: Mapping[Site, Tensor], block: int) -> dict[str, Array]:
        stream = self.prepared.model.anatomy.generated.name
        state = states[Site(block - 1, stream, "hidden")].float()
        shift, scale = (states[Site(block, stream, kind, "attn")].float() for kind in ("shift", "scale"))
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
        """Random ordinary channels, as many as the discarded ones: `DRAWS` draws out of `count` channels."""
        others = np.setdiff1d(np.arange(count), self.channels)
        return [draw_channels(others, len(self.channels), [self.seed, number]) for number in range(DRAWS)]


def check_described(model: Model, block: int) -> None:
    """Raise ModelError if the block does not apply LayerNorm, AdaLN scale and shift to its image state before attention."""
    norm_of(model, block)
    sites, drawn = {str(site) for site in model.anatomy.sites()}, model.anatomy.generated.name
    missing = [kind for kind in ("scale", "shift") if f"block.{block}/{drawn}/{kind}.attn" not in sites]
    if missing:
        raise ModelError(f"block {block} has no AdaLN {missing[0]}, which these descriptors need: {model.name} has none")


def norm_of(model: Model, block: int) -> Any:
    """The LayerNorm without weights that a block applies to its image input."""
    described: Block = model.anatomy.blocks[block]
    own = [norm for norm in described.norms if model.anatomy.generated.name in norm.streams]
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
    """Prepare descriptors.

    `blocks` are the blocks that receive the described states: 1 or later, by default all. `steps_at` are sampling steps: their
    noise levels are used, by default that of the middle step. `given` are fields of `Sampling`.
    """
    drawn = sampling if sampling is not None else split(given, Sampling, of="extractor")[0]
    still = autoencoder.still_settings(model.pipe, model.loaded.spec)
    drawn = dataclasses.replace(drawn, settings={**as_settings(drawn.settings), **still})
    prepared = prepare(model, list(prompts), drawn, record=Record(stats=False, gates=False))
    count, steps = len(model.anatomy.blocks), len(prepared.schedule.timesteps)
    wanted = resolve_indices(range(1, count) if blocks is None else parse_indices(blocks, "blocks"), count, "blocks")
    if 0 in wanted:
        raise InputError("blocks must be 1 or later: the input of block 0 is the embedding, which has no massive channels yet")
    for block in wanted:
        check_described(model, block)
    at = resolve_indices((steps // 2,) if steps_at is None else parse_indices(steps_at, "steps_at"), steps, "steps_at")
    chosen = resolve_indices(parse_indices(channels, "channels"), model.anatomy.channels, "channels")
    if 2 * len(chosen) > model.anatomy.channels:
        raise InputError(f"channels must be at most half of {model.anatomy.channels}; got {len(chosen)}")
    return Extractor(prepared, chosen, wanted, at, prepared.plan.seed)


def extract(model: Model, pictures: Array, prompts: Sequence[str], **given: Any) -> xr.Dataset:
    """Descriptors of pictures, (picture, y, x, rgb) uint8, each with its prompt; `given` are arguments of `extractor`.

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
    return xr.Dataset(
        {"descriptors": (dims, array.reshape(*array.shape[:4], *made.prepared.layout.grid, array.shape[-1]))},
        {**coordinates, "prompt_text": ("picture", np.array(prompts, object))},
        {"model": model.name, "weights": made.prepared.plan.weights, "channels": list(made.channels), "seed": made.seed},
    )


def default_channels(model: Model) -> list[int]:
    """DiTF's channels of a model, or the catalog's massive channels."""
    if model.name in PRESETS:
        return list(PRESETS[model.name][0])
    entry = CATALOG.get(model.name)
    if entry is None or entry.massive is None:
        raise InputError(f"channels must be given for {model.name}: --channels 1,2 (`interp massive` finds them)")
    return list(entry.massive.channels)


def default_blocks(model: Model) -> list[int] | None:
    """DiTF's block; `None` for all."""
    _, block = PRESETS.get(model.name, ((), None))
    return None if block is None else [block]
