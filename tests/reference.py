"""What a trace must give, computed without interp: plain torch hooks on diffusers' own modules, and numpy in float64.

Written from diffusers' source; it knows nothing of anatomies, sites or recorders.
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


Handles = list[Any]
TupleItems = dict[str, int]
ZERO, ZERO_X, SINGLE = {"attn": 1, "mlp": 4}, {"attn": 1, "mlp": 4, "attn2": 6}, {"attn": 1}


def gates_of(module: Any) -> TupleItems:
    """Where diffusers' AdaLN norms return their gates; a continuous one returns a tensor and has none."""
    return {"AdaLayerNormZero": ZERO, "SD35AdaLayerNormZeroX": ZERO_X, "AdaLayerNormZeroSingle": SINGLE}.get(
        type(module).__name__, {}
    )


def blocks_of(transformer: Any) -> list[tuple[Any, list[tuple[Any, tuple[str, ...]]]]]:
    """Every block in execution order, with its norms and the streams each norm's gates are for."""
    found = []
    for block in transformer.transformer_blocks:
        norms = [(block.norm1, ("image",))]
        if hasattr(block, "norm1_context"):
            norms.append((block.norm1_context, ("text",)))
        found.append((block, norms))
    for block in getattr(transformer, "single_transformer_blocks", []):
        found.append((block, [(block.norm, ("image", "text"))]))
    return found


@contextlib.contextmanager
def hooked(pipe: Any) -> Iterator[Seen]:
    """Plain forward hooks on every block and every AdaLN norm of an SD3, Flux or DiT pipeline."""
    seen, handles = Seen(), []

    def keep(store: dict[Any, list[np.ndarray]], key: Any, value: torch.Tensor) -> None:
        store.setdefault(key, []).append(value.detach().float().numpy().copy())

    for index, (block, norms) in enumerate(blocks_of(pipe.transformer)):

        def on_block(module: Any, args: Any, output: Any, index: int = index) -> None:
            states = zip(("text", "image"), output, strict=True) if isinstance(output, tuple) else [("image", output)]
            for stream, state in states:
                if state is not None:
                    keep(seen.hidden, (stream, index), state)

        handles.append(block.register_forward_hook(on_block))
        for norm, streams in norms:

            def on_norm(module: Any, args: Any, output: Any, index: int = index, streams: Any = streams) -> None:
                for gate, item in gates_of(module).items():
                    for stream in streams:
                        keep(seen.alpha, (stream, gate, index), output[item])

            handles.append(norm.register_forward_hook(on_norm))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def untraced(pipe: Any, prompts: list[str], seeds: list[int], **arguments: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (prompt, y, x, rgb) uint8 and last latents of the plain pipeline, its guidance off."""
    last: list[torch.Tensor] = []
    step = pipe.scheduler.step

    def watched(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        last[:] = [(result[0] if isinstance(result, tuple) else result.prev_sample).clone()]
        return result

    arguments["generator"] = [torch.Generator().manual_seed(seed) for seed in seeds]
    kind = type(pipe).__name__
    if kind == "DiTPipeline":
        arguments = {key: value for key, value in arguments.items() if key not in ("height", "width")}
        arguments |= {"class_labels": [pipe.labels.get(text, text) for text in prompts], "guidance_scale": 1.0}
        arguments["class_labels"] = [int(label) for label in arguments["class_labels"]]
    elif kind == "FluxPipeline":
        arguments["prompt"] = prompts
        if "embedded_guidance" in arguments:
            arguments["guidance_scale"] = arguments.pop("embedded_guidance")
    else:
        arguments |= {"prompt": prompts, "guidance_scale": 1.0}
    pipe.scheduler.step = watched
    try:
        images = pipe(**arguments).images
    finally:
        del pipe.scheduler.step
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
