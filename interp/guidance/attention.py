"""Perturbed attention: image tokens attend to themselves and not to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from interp.base.errors import ModelError

Pieces = Sequence[slice]
"""The perturbed rows of the batch."""


class OwnTokens(TorchFunctionMode):
    """While active, masks image-to-image attention to its diagonal for some rows of every joint attention call.

    As diffusers' PAGJointAttnProcessor2_0, after perturbed-attention guidance (arXiv 2403.17377): image tokens still attend to
    text, and text tokens to all. The image's span in the joint state is where its `values`, (batch, token, channel), stand.
    """

    def __init__(self, values: Tensor, pieces: Pieces) -> None:
        super().__init__()
        self.values, self.pieces = values, pieces
        self.done = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function; replace the perturbed rows of an attention."""
        given = dict(kwargs or {})
        output = func(*args, **given)
        if func is not functional.scaled_dot_product_attention:
            return output
        names = ("query", "key", "value", "attn_mask")
        tensors: list[Any] = [given.get(name, args[place] if place < len(args) else None) for place, name in enumerate(names)]
        query, key, value, mask = tensors
        span = self._span(value)
        if span is None:
            return output
        terms = {name: one for name, one in given.items() if name in ("dropout_p", "scale", "enable_gqa")}
        output = output.clone()
        for rows in self.pieces:
            own = diagonal(query.shape[-2], span, query)
            if mask is not None:
                theirs = mask[rows] if len(mask) == len(query) else mask
                own = own.masked_fill(~theirs, -torch.inf) if theirs.dtype == torch.bool else own + theirs
            output[rows] = functional.scaled_dot_product_attention(query[rows], key[rows], value[rows], attn_mask=own, **terms)
        self.done = True
        return output

    def _span(self, value: Tensor) -> slice | None:
        """The image's tokens in values of (batch, head, token, width); `None` if they are not those of these rows."""
        rows, count, _ = self.values.shape
        if len(value) != rows or value.shape[-2] < count:
            return None
        first = self.values[:, 0].reshape(rows, value.shape[1], -1)
        for start in dict.fromkeys((0, value.shape[-2] - count)):
            if torch.equal(value[:, :, start], first):
                return slice(start, start + count)
        return None


def diagonal(length: int, span: slice, like: Tensor) -> Tensor:
    """What is added to (query, key) scores: -inf between different tokens of the span, else 0."""
    mask = torch.zeros(length, length, dtype=like.dtype, device=like.device)
    mask[span, span] = -torch.inf
    mask[span, span].fill_diagonal_(0.0)
    return mask


def check_done(mode: OwnTokens, block: int) -> None:
    """Raise ModelError if no attention of the image's tokens was met."""
    if not mode.done:
        raise ModelError(
            f"pag: the attention of block {block} is not one call of torch's scaled_dot_product_attention, so that its "
            "image-to-text part cannot be kept; give text=cut"
        )
