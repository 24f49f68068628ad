"""Tiny random diffusers pipelines, complete and offline: the fixture of our tests and of yours.

folder = interp.models.tiny.build("sd3", "some/folder", seed=0)
model = interp.load(folder)

A family is a data file in `tiny_families/`: its `sizes`, its `parts` in the order in which their weights are drawn, its
`pipeline` (a class, more of its arguments, and `register`: what its configuration holds besides), and the `defaults` of its
runs. `interp.models.components` says what the data of a part may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from interp.base.errors import InputError
from interp.models import components
from interp.models.catalog import Defaults, write_defaults
from interp.models.quiet import quiet

WORDS = components.WORDS
DATA = Path(__file__).parent / "tiny_families"
FAMILIES = tuple(sorted(path.stem for path in DATA.glob("*.yaml")))


def build(family: str, folder: str | Path, *, seed: int = 0, **sizes: Any) -> Path:
    """Write a tiny random pipeline of a family and return its folder; pictures are 64x64 by default.

    `sizes` overrides those at the top of the family's file, such as blocks=4, heads=2, head_width=16, resolution=64 (pixels;
    bigger for benchmarks); for sd3 dual_attention=(0, 1) (block indices), for videos frames.
    """
    folder = Path(folder)
    with quiet():
        pipe, defaults = make(family, seed=seed, **sizes)
        pipe.save_pretrained(folder, safe_serialization=True)
        components.tidy_configs(folder)
    write_defaults(folder, defaults)
    return folder


def make(family: str, *, seed: int = 0, **sizes: Any) -> tuple[Any, Defaults]:
    """The same pipeline in memory, with the defaults that its folder would hold."""
    if family not in FAMILIES:
        raise InputError(f"family must be one of {', '.join(FAMILIES)}; got {family!r}")
    data = yaml.safe_load((DATA / f"{family}.yaml").read_text(encoding="utf-8"))
    chosen = components.chosen(family, data["sizes"], sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = _parts(data["parts"], chosen)
    settings = components.resolved(data["pipeline"], chosen)
    kind, registered = components.named(settings.pop("class")), settings.pop("register", {})
    pipe = kind(**parts, **settings)
    if registered:
        pipe.register_to_config(**registered)
    return pipe, Defaults(**components.resolved(data["defaults"], chosen))


def _parts(data: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Every component; `text_encoder_2` is made for the vocabulary of `tokenizer_2`, which comes before it."""
    made: dict[str, Any] = {}
    for name, part in data.items():
        tokenizer = made[name.replace("text_encoder", "tokenizer")] if name.startswith("text_encoder") else None
        made[name] = components.make(part, sizes, tokenizer)
    return made
