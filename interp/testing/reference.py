"""The expected contents of a trace, computed without tracing: a plain pipeline, torch hooks, and numpy in float64.

It uses no anatomies, sites or recorders. A family's test file writes its hooks with `Seen`, from diffusers' source.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interp.models.scheduling import watched_steps

Array = NDArray[Any]


class Seen:
    """What plain hooks recorded in a pipeline's run: one entry per call of the transformer, in order."""

    def __init__(self) -> None:
        self.hidden: dict[tuple[str, int], list[Array]] = {}
        self.alpha: dict[tuple[str, str, int], list[Array]] = {}
        self.predictions: list[Array] = []
        self.predicted: Callable[[Tensor], Tensor] = lambda output: output
        """The latents' tokens in the transformer's output; a family's hooks may set it."""
        self.handles = contextlib.ExitStack()
        self._text_tokens = 0

    def states(self, stream: str, block: int) -> Array:
        """States after a block, (prompt, step, token, channel)."""
        return np.stack(self.hidden[stream, block], axis=1)

    def gates(self, stream: str, gate: str, block: int) -> Array:
        """A gate's alpha, (prompt, step, channel)."""
        return np.stack(self.alpha[stream, gate, block], axis=1)

    def after(self, module: nn.Module, keep: Callable[[Any], None]) -> None:
        """Call `keep` with every output of a module."""
        self.handles.enter_context(module.register_forward_hook(lambda m, args, output: keep(output)))

    def before(self, module: nn.Module, keep: Callable[[Mapping[str, Any]], None]) -> None:
        """Call `keep` with every call's arguments of a module, by name."""
        signature = inspect.signature(type(module).forward)
        self.handles.enter_context(
            module.register_forward_pre_hook(
                lambda m, args, named: keep(signature.bind(m, *args, **named).arguments), with_kwargs=True
            )
        )

    def keep_state(self, stream: str, block: int, value: Tensor) -> None:
        """One stream's state after a block, (batch, token, channel)."""
        self.hidden.setdefault((stream, block), []).append(_copied(value))

    def keep_gate(self, streams: Sequence[str], gate: str, block: int, value: Tensor) -> None:
        """One gate's alpha, (batch, channel); of several streams where they share the gate."""
        for stream in streams:
            self.alpha.setdefault((stream, gate, block), []).append(_copied(value))

    def states_after(self, module: nn.Module, block: int, order: Sequence[str] = ("image",)) -> None:
        """Keep a block's output: the streams' states in this order, or one joint state, text first."""

        def keep(output: Any) -> None:
            if not isinstance(output, tuple):
                cut = self._text_tokens if len(order) > 1 else 0
                output = tuple({"text": output[:, :cut], "image": output[:, cut:]}[stream] for stream in order)
            for stream, state in zip(order, output, strict=len(order) > 1):
                if state is not None:
                    self._text_tokens = state.shape[1] if stream == "text" else self._text_tokens
                    self.keep_state(stream, block, state)

        self.after(module, keep)

    def gates_after(
        self, module: nn.Module, block: int, streams: Sequence[str], items: Mapping[str, int], chunks: int = 0
    ) -> None:
        """Keep gates from a module's output, each given by its index in a tuple or among chunks of channels."""

        def keep(output: Any) -> None:
            parts = output.chunk(chunks, dim=-1) if chunks else output
            for gate, item in items.items():
                self.keep_gate(streams, gate, block, parts[item])

        self.after(module, keep)

    def table_gates_before(self, module: Any, block: int, argument: str) -> None:
        """Keep the gates of a block that adds a table of six rows (shift, scale, gate of attention and MLP) to an argument."""

        def keep(given: Mapping[str, Any]) -> None:
            value = given[argument]
            rows = module.scale_shift_table.reshape(1, 6, -1) + value.reshape(len(value), 6, -1).float()
            for gate, row in (("attn", 2), ("mlp", 5)):
                self.keep_gate(("image",), gate, block, rows[:, row])

        self.before(module, keep)


@contextlib.contextmanager
def hooked(transformer: nn.Module, hooks: Callable[[Any, Seen], None]) -> Iterator[Seen]:
    """Register plain hooks on a transformer inside a `with` block."""
    seen = Seen()
    seen.after(transformer, lambda output: seen.predictions.append(_copied(seen.predicted(_picture(output[0])))))
    hooks(transformer, seen)
    with seen.handles:
        yield seen


@contextlib.contextmanager
def last_latents(pipe: Any) -> Iterator[list[Tensor]]:
    """A list that holds the latents after the latest step of a pipeline's scheduler."""
    last: list[Tensor] = []

    def watched(step: Callable[..., Any], *args: Any, **named: Any) -> Any:
        result = step(*args, **named)
        last[:] = [(result[0] if isinstance(result, tuple) else result.prev_sample).clone()]
        return result

    with watched_steps(pipe.scheduler, watched):
        yield last


def statistics(states: Array) -> dict[str, Array]:
    """Statistics over the token axis (-2), in float64."""
    states = states.astype(np.float64)
    size = np.abs(states)
    return {
        "mean": states.mean(-2),
        "mean_abs": size.mean(-2),
        "max_abs": size.max(-2),
        "min_abs": size.min(-2),
        "var": states.var(-2),
    }


def _picture(output: Tensor | list[Tensor]) -> Tensor:
    """The rows of an output, which may be a list with (channel, frame, y, x) of one frame for each row."""
    return output if isinstance(output, Tensor) else torch.stack(output)[:, :, 0]


def _copied(value: Tensor) -> Array:
    copy: Array = value.detach().to("cpu", torch.float32, copy=True).numpy()
    return copy
