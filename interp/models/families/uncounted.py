"""Blocks of one state that holds text of no fixed length beside the image: text is conditioning, not a stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from interp.models.anatomy import Block, Inputs, Lengths
from interp.models.hook_points import REST, cut, places
from interp.models.lazy import torch

TEXT_IN_FRONT = ("text", "image", REST)
"""What a `CountedBlock` holds, in order."""
IMAGE_LAST = (REST, "image")  # the same of a `LastBlock`


@dataclasses.dataclass(frozen=True)
class CountedBlock(Block):
    """A block of one state that holds a row's text, its image, and padding up to the longest row. The number of text tokens
    depends on the row. Text is conditioning, not a stream.
    """

    mask: str = "attention_mask"
    """The argument that is true for a row's tokens; it is `None` in a call whose rows are as long."""

    def in_rows(self, inputs: Inputs, lengths: Lengths) -> Lengths:
        """The lengths, with those of the text in each row: what the image leaves."""
        mask, state = inputs.get(self.mask), inputs[self.state_inputs["image"]]
        totals = [state.shape[1]] if mask is None else mask.sum(dim=1).tolist()
        text = tuple(int(total) - lengths["image"] for total in totals)
        return {**lengths, "text": text if len(set(text)) > 1 else text[0]}

    def with_states(self, output: Any, states: Mapping[str, torch.Tensor], lengths: Lengths) -> Any:
        """The block's output with the image's state replaced."""
        index = places(TEXT_IN_FRONT, "image", lengths, output.device)[..., None].expand(-1, -1, output.shape[-1])
        return output.scatter(1, index.expand(len(output), -1, -1), states["image"])

    def output_of(self, states: Mapping[str, torch.Tensor], inputs: Inputs, lengths: Lengths) -> Any:
        """An output of the block that holds this state; the other tokens are those of its inputs."""
        return self.with_states(inputs[self.state_inputs["image"]], states, self.in_rows(inputs, lengths))

    def _cut(self, state: torch.Tensor, stream: str, lengths: Lengths) -> torch.Tensor:
        return cut(state, TEXT_IN_FRONT, stream, lengths)


@dataclasses.dataclass(frozen=True)
class LastBlock(Block):
    """A block whose state holds the image's tokens last, behind as many of text as its rows have."""

    def with_states(self, output: Any, states: Mapping[str, torch.Tensor], lengths: Lengths) -> Any:
        """The block's output with the image's state replaced; one row of text may serve several of these."""
        text = output[:, : -lengths["image"]].expand(len(states["image"]), -1, -1)
        return torch.cat([text, states["image"]], dim=1)

    def output_of(self, states: Mapping[str, torch.Tensor], inputs: Inputs, lengths: Lengths) -> Any:
        """An output of the block that holds this state behind the text of its inputs."""
        return self.with_states(inputs["hidden_states"], states, lengths)

    def _cut(self, state: torch.Tensor, stream: str, lengths: Lengths) -> torch.Tensor:
        return cut(state, IMAGE_LAST, stream, lengths)
