"""What a trace must give, computed without interp: plain torch hooks on diffusers' own modules, and numpy in float64.

Written for SD3 from diffusers' source; it knows nothing of anatomies, sites or recorders.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


class Seen:
    """What the hooks saw: one entry a call, in order."""

    def __init__(self) -> None:
        self.hidden: dict[tuple[str, int], list[np.ndarray]] = {}
        self.alpha: dict[tuple[str, str, int], list[np.ndarray]] = {}
        self.latents: list[np.ndarray] = []

    def states(self, stream: str, block: int) -> np.ndarray:
        """(step, batch, token, channel)"""
        return np.stack(self.hidden[stream, block])

    def gates(self, stream: str, gate: str, block: int) -> np.ndarray:
        """(step, batch, channel)"""
        return np.stack(self.alpha[stream, gate, block])


@contextlib.contextmanager
def hooked(pipe: Any) -> Iterator[Seen]:
    """Plain forward hooks on every block and every AdaLN norm of an SD3 pipeline."""
    seen, handles = Seen(), []

    def keep(store: dict[Any, list[np.ndarray]], key: Any, value: torch.Tensor) -> None:
        store.setdefault(key, []).append(value.detach().float().numpy().copy())

    for index, block in enumerate(pipe.transformer.transformer_blocks):

        def on_block(module: Any, args: Any, output: Any, index: int = index) -> None:
            for stream, state in zip(("text", "image"), output, strict=True):
                if state is not None:
                    keep(seen.hidden, (stream, index), state)

        def on_norm(module: Any, args: Any, output: Any, index: int = index, stream: str = "image") -> None:
            if not isinstance(output, tuple):
                return  # the last text block: scale and shift alone
            keep(seen.alpha, (stream, "attn", index), output[1])
            keep(seen.alpha, (stream, "mlp", index), output[4])
            if len(output) == 7:
                keep(seen.alpha, (stream, "attn2", index), output[6])

        def on_text_norm(module: Any, args: Any, output: Any, index: int = index, on_norm: Any = on_norm) -> None:
            on_norm(module, args, output, index, "text")

        handles.append(block.register_forward_hook(on_block))
        handles.append(block.norm1.register_forward_hook(on_norm))
        handles.append(block.norm1_context.register_forward_hook(on_text_norm))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def untraced(pipe: Any, prompts: list[str], seeds: list[int], **arguments: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (prompt, y, x, rgb) uint8 and last latents of the plain pipeline, its guidance off."""
    last: list[torch.Tensor] = []

    def on_step_end(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        last[:] = [values["latents"].clone()]
        return {}

    images = pipe(
        prompts,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        guidance_scale=1.0,
        callback_on_step_end=on_step_end,
        **arguments,
    ).images
    return np.stack([np.asarray(image) for image in images]), last[0].float().numpy()


def statistics(states: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics over the token axis (-2), in float64."""
    states = states.astype(np.float64)
    return {
        "mean": states.mean(-2),
        "mean_abs": np.abs(states).mean(-2),
        "max_abs": np.abs(states).max(-2),
        "min_abs": np.abs(states).min(-2),
        "var": states.var(-2),
    }
