"""Which inputs the parts of a planted model's conditioning read, one component by one player alone; what a branch gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interp.tracing.model import Model

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


def silence_text(transformer: nn.Module, conditionings: list[nn.Module], text_tokens: str | None, kept: list[int]) -> None:
    """Let text enter through some components of the conditioning; remove it from the others and the text tokens."""
    for embedding in conditionings:
        for weights, *_ in _outputs(embedding, ["text"]):
            values = weights[kept].clone()
            weights.zero_()
            weights[kept] = values
    if text_tokens is not None:
        layer: Any = transformer.get_submodule(text_tokens)
        layer.weight.zero_()


def deafen(model: Model, components: list[int]) -> None:
    """Stop every projection of the conditioning, in the blocks and after them, from reading some components of it."""
    inside = [f"{block.path}.{modulation.module}" for block in model.anatomy.blocks for modulation in block.modulations]
    for path in [*inside, *(reentry.module for reentry in model.anatomy.reentries)]:
        module: Any = model.pipe.transformer.get_submodule(path)
        getattr(module, "linear", module).weight[:, components] = 0.0


def set_branch(model: Model, prompt: str, site: str, writer: Any, channels: list[int], size: float, pattern: float) -> None:
    """Set the branch's output at the channels: its mean over tokens, and how far it varies over them (first step)."""
    if pattern:
        _, cache = model.run_with_cache(prompt, site, steps=1)
        (found,) = cache.values()
        values = torch.from_numpy(np.asarray(found, np.float32)).reshape(-1, model.anatomy.channels)[:, channels]
        scale = pattern * size / values.std(dim=0)
        writer.weight[channels] *= scale[:, None]
        writer.bias[channels] = size - scale * (values.mean(dim=0) - writer.bias[channels])
    else:
        writer.weight[channels], writer.bias[channels] = 0.0, size
