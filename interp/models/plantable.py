"""Where a massive channel can be planted in a family's weights: data for `interp.testing.plant`.

Conditioning is a sum of embeddings, temb = timestep + text (or class) [+ guidance]. Setting rows of those embeddings to zero
leaves components of temb that only one input sets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from interp.models import tiny


def word_prompts(pipe: Any, draw: np.random.Generator, count: int) -> tuple[str, ...]:
    """Distinct texts from the tiny tokenizers' words."""
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[" ".join(draw.choice(tiny.WORDS, int(draw.integers(2, 6))))] = None
    return tuple(texts)


def class_prompts(pipe: Any, draw: np.random.Generator, count: int) -> tuple[str, ...]:
    """Distinct class numbers."""
    classes = pipe.transformer.config.num_embeds_ada_norm
    return tuple(str(number) for number in draw.choice(classes, count, replace=False))


@dataclasses.dataclass(frozen=True)
class Plantable:
    """Modules of one family that a plant writes into."""

    embedders: str
    """Module that holds the embeddings: in the transformer or, where every block has its own, in each block."""
    in_blocks: bool
    writers: Mapping[str, Mapping[str, str]]
    """Per kind of block and "stream.gate": the last linear layer of the branch, inside the block."""
    text_tokens: str | None = None
    """The linear layer that embeds text tokens."""
    prompts: Callable[[Any, np.random.Generator, int], tuple[str, ...]] = word_prompts
    """(pipe, random numbers, count) -> distinct prompts that the model accepts."""

    def conditionings(self, transformer: Any, block_paths: list[str]) -> list[nn.Module]:
        """Every module that embeds timestep and text or class."""
        places = [f"{path}.{self.embedders}" for path in block_paths] if self.in_blocks else [self.embedders]
        return [transformer.get_submodule(place) for place in places]


_TWO_STREAMS = {
    "image.attn": "attn.to_out.0",
    "text.attn": "attn.to_add_out",
    "image.mlp": "ff.net.2",
    "text.mlp": "ff_context.net.2",
}
PLANTABLE: dict[str, Plantable] = {
    "sd3": Plantable(
        "time_text_embed",
        False,
        {"joint": _TWO_STREAMS, "joint-dual": {**_TWO_STREAMS, "image.attn2": "attn2.to_out.0"}},
        "context_embedder",
    ),
    "flux": Plantable(
        "time_text_embed",
        False,
        {"double": _TWO_STREAMS, "single": {"image.attn": "proj_out"}},
        "context_embedder",
    ),
    "dit": Plantable(
        "norm1.emb",
        True,
        {"class-conditional": {"image.attn": "attn1.to_out.0", "image.mlp": "ff.net.2"}},
        prompts=class_prompts,
    ),
}


PARTS = {"timestep": ("timestep_embedder",), "text": ("text_embedder", "class_embedder"), "guidance": ("guidance_embedder",)}


def _outputs(embedding: nn.Module, players: Iterable[str]) -> Iterator[list[Tensor]]:
    """Weights of the parts that embed these players, output axis first: a table, or a last layer's weight and bias."""
    for part in (getattr(embedding, name) for player in players for name in PARTS[player] if hasattr(embedding, name)):
        table = getattr(part, "embedding_table", None)
        yield [part.linear_2.weight, part.linear_2.bias] if table is None else [table.weight.T]


def keep_apart(embedding: nn.Module, component: int, player: str) -> None:
    """Make one component of a combined embedding depend on `player` (timestep, text, guidance) alone."""
    for outputs in _outputs(embedding, PARTS.keys() - {player}):
        for weights in outputs:
            weights[component] = 0.0


def silence_text(transformer: nn.Module, conditionings: list[nn.Module], text_tokens: str | None, component: int) -> None:
    """Let text enter through one component of the conditioning; remove it from the others and the text tokens."""
    for embedding in conditionings:
        for weights, *_ in _outputs(embedding, ["text"]):
            kept = weights[component].clone()
            weights.zero_()
            weights[component] = kept
    if text_tokens is not None:
        layer: Any = transformer.get_submodule(text_tokens)
        layer.weight.zero_()


def deafen(transformer: nn.Module, modules: list[str], component: int) -> None:
    """Stop projections (a linear layer, or a module with a `linear`) from reading a component of the conditioning."""
    for path in modules:
        module: Any = transformer.get_submodule(path)
        getattr(module, "linear", module).weight[:, component] = 0.0
