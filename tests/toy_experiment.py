"""A whole experiment in one file, as a user would add it: shuffle the tokens of a block. `test_kinds.py` tries all of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp import experiments
from interp.base.options import Blocks, Prompts
from interp.base.sites import parse_indices, resolve_indices
from interp.experiments.kind import Kind, Request

if TYPE_CHECKING:
    from torch import Tensor

    from interp.base.sites import Site
    from interp.experiments.design import Drawing


@dataclasses.dataclass(frozen=True)
class Options:
    """Where tokens are shuffled."""

    prompts: Prompts
    blocks: Blocks = None
    order: Annotated[int, Doc("Seed of the permutation of tokens.")] = 0


@dataclasses.dataclass(frozen=True)
class Shuffle:
    """Permute the image tokens that a block hands on."""

    block: int
    order: int

    def touches(self, site: Site, step: int) -> bool:
        return site.kind == "hidden" and site.stream == "image" and site.block == self.block

    def apply(self, site: Site, step: int, value: Tensor) -> Tensor:
        import torch

        return value[:, torch.randperm(value.shape[1], generator=torch.Generator().manual_seed(self.order))]

    def to_json(self) -> dict[str, Any]:
        return {"edit": "Shuffle", "block": self.block, "order": self.order}


def design(request: Request) -> Drawing:
    prepared = request.prepare(request.options.prompts)
    count = len(prepared.model.anatomy.blocks)
    blocks = resolve_indices(parse_indices(request.options.blocks, "blocks"), count, "blocks")
    arms = [experiments.draw.Arm("original", (), {"block": -1})]
    for block in blocks:
        place = (0, block, 1)  # it leaves the clean run at the first step, after the block
        edit = (Shuffle(block, request.options.order),)
        arms.append(experiments.draw.Arm(f"block {block}", edit, {"block": block}, place=place))
    parameters = {"blocks": blocks, "order": request.options.order}
    return request.drawing(prepared, arms, parameters)


shuffle = Kind("shuffle", "Shuffle the tokens of a block, and measure what is left of the picture.", Options, design)
