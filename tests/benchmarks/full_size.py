"""Random transformers as large as published ones, for what they cost: `--size flux` or `sd3.5-large` of the benchmarks.

Nobody's weights are needed, and none are had: time and memory do not ask what the weights are. Blocks, heads, channels and
tokens are those of the published configurations. The text encoders and the autoencoder are tiny, and so are the layers that
meet them: what is measured is the transformer.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import torch

from interp.guidance.presets import PRESETS
from interp.models import tiny
from interp.models.catalog import Defaults
from interp.models.load import adopt
from interp.models.quiet import quiet
from interp.tracing.model import Model


@dataclasses.dataclass(frozen=True)
class Size:
    """What a transformer of a published size is made from."""

    title: str
    family: str
    config: Mapping[str, Any]
    """What differs from the tiny transformer's."""
    resolution: int
    """The tiny autoencoder shrinks a picture four times, not eight: half the side has as many tokens."""
    text: int
    """`max_sequence_length` that gives the published number of text tokens."""
    preset: str
    """Whose block Detail Guidance forks at."""


SIZES = {
    "flux": Size(
        "a model of FLUX.1's size",
        "flux",
        {
            "num_layers": 19,
            "num_single_layers": 38,
            "num_attention_heads": 24,
            "attention_head_dim": 128,
            "axes_dims_rope": (16, 56, 56),
        },
        resolution=512,
        text=512,
        preset="flux-dedistilled",
    ),
    "sd3.5-large": Size(
        "a model of Stable Diffusion 3.5 Large's size",
        "sd3",
        {
            "num_layers": 38,
            "num_attention_heads": 38,
            "attention_head_dim": 64,
            "caption_projection_dim": 2432,
            "qk_norm": "rms_norm",
        },
        resolution=512,
        text=77 + 256 - 8,  # the tiny CLIP gives 8
        preset="sd3.5",
    ),
    "small": Size(
        "a small model, for trying out", "flux", {"num_layers": 12, "num_single_layers": 13}, 64, 16, "flux-dedistilled"
    ),
}


def build(name: str, device: str, dtype: str) -> Model:
    """A model of its own pipeline; all of one size share their weights."""
    size, pristine = SIZES[name], _transformer(name, device, dtype)
    shared = {id(tensor): tensor for tensor in (*pristine.parameters(), *pristine.buffers())}
    with quiet():
        pipe, defaults = tiny.make(size.family, resolution=size.resolution)
        pipe.register_modules(transformer=copy.deepcopy(pristine, shared))
        pipe.to(device, getattr(torch, dtype))
    pipe.set_progress_bar_config(disable=True)
    settings = {"max_sequence_length": size.text}
    return Model(
        adopt(
            pipe, f"random {name}", defaults=Defaults(defaults.steps, defaults.height, defaults.width, settings), device=device
        )
    )


@functools.cache
def _transformer(name: str, device: str, dtype: str) -> Any:
    """Made where it will be, in the type it will have: seconds, where moving it there would take minutes. It is never run."""
    size, before = SIZES[name], torch.get_default_dtype()
    with quiet():
        small = tiny.make(size.family, resolution=size.resolution)[0].transformer
        torch.manual_seed(0)
        torch.set_default_dtype(getattr(torch, dtype))
        try:
            with torch.device(device):
                return type(small).from_config({**small.config, **size.config}).eval()
        finally:
            torch.set_default_dtype(before)


def detail_block(name: str) -> int:
    """Where the paper's Detail Guidance edits a model of this size."""
    return PRESETS[SIZES[name].preset].block


def said(model: Model) -> str:
    """The model in words, as it is in memory."""
    anatomy, transformer = model.anatomy, model.pipe.transformer
    layout = model.loaded.spec.layout(model.pipe, *model.sizes(), model.settings())
    billions = sum(tensor.numel() for tensor in transformer.parameters()) / 1e9
    shape = f"{len(anatomy.blocks)} blocks x {anatomy.channels} channels"
    tokens = f"{layout.tokens('image')} image and {layout.tokens('text')} text tokens"
    return f"{shape}, {tokens}, {billions:.2g} billion random weights"
