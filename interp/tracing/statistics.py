"""Reductions of a hidden state over its tokens, on its device: on a card one kernel that reads it once (`kernel`), elsewhere
torch, in blocks that stay in the processor's cache.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from interp.base.errors import InterpWarning

STATISTICS = ("mean", "mean_abs", "max_abs", "min_abs", "var")
MEDIAN_SAMPLE = 2_048  # elements used for the median of a state: its standard error is 2.6% where elements are normal
BLOCK = 2**18  # elements reduced at a time
_THREAD = threading.local()


def one_thread(reduce: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Reduce on one thread of a CPU: two take what they read from each other's caches, and wait for each other."""

    @functools.wraps(reduce)
    def alone(states: Tensor) -> Tensor:
        threads = torch.get_num_threads()
        if states.device.type != "cpu" or threads == 1:
            return reduce(states)
        torch.set_num_threads(1)
        try:
            return reduce(states)
        finally:
            torch.set_num_threads(threads)

    return alone


@one_thread
def token_mean(states: Tensor) -> Tensor:
    """Mean over tokens of (batch, token, channel): (batch, channel) float32."""
    blocks = torch.split(states, _tokens(states), dim=1)
    if len(blocks) == 1:
        return states.mean(dim=1, dtype=torch.float32)
    sums = torch.stack([block.sum(dim=1, dtype=torch.float32) for block in blocks])
    return (sums.to(_wide(states)).sum(dim=0) / states.shape[1]).float()


@one_thread
def token_statistics(states: Tensor) -> Tensor:
    """Statistics over tokens of (batch, token, channel): (batch, statistic, channel) float32, in `STATISTICS` order.

    The population variance is that of the deviations from the mean: the mean of a massive channel is so far from zero that
    E[x^2] - E[x]^2 loses all digits. Blocks of tokens are merged as Chan, Golub and LeVeque (1979) do, in float64 where the
    device has it. Errors against float64: 1e-6 of the channel's mean |x|, for the variance 1e-6 of itself.
    """
    fused = fused_on(states.device) if states.is_cuda else None
    if fused is not None:
        return fused(states)
    rows = max(1, BLOCK // (states.shape[1] * states.shape[2]))
    if rows < len(states) and states.device.type == "cpu":
        return torch.cat([token_statistics(part) for part in torch.split(states, rows)])
    blocks = torch.split(states, _tokens(states), dim=1)
    if len(blocks) == 1:
        return torch.stack(_of_block(states), dim=1)
    found = torch.stack([torch.stack(_of_block(block)) for block in blocks]).to(_wide(states))  # (block, statistic, batch, ch.)
    sizes = [block.shape[1] / states.shape[1] for block in blocks]
    share = torch.tensor(sizes, dtype=found.dtype, device=found.device)[:, None, None]
    mean, mean_abs, largest, smallest, var = found.unbind(1)
    whole = (share * mean).sum(0)
    spread = (share * (var + (mean - whole).square_())).sum(0)
    return torch.stack([whole, (share * mean_abs).sum(0), largest.amax(0), smallest.amin(0), spread], dim=1).float()


def _of_block(states: Tensor) -> list[Tensor]:
    """Statistics of a block that fits in the cache; it is read once, into a float32 copy."""
    values, size = _scratch(states)
    torch.abs(values.copy_(states), out=size)
    mean = values.mean(1)
    mean_abs, largest, smallest = size.mean(1), size.amax(1), size.amin(1)
    return [mean, mean_abs, largest, smallest, values.sub_(mean.unsqueeze(1)).square_().mean(1)]


def _scratch(like: Tensor) -> tuple[Tensor, Tensor]:
    """Two float32 tensors of this shape. On a CPU they are used again: new memory costs more than the arithmetic."""
    if like.device.type != "cpu":
        return torch.empty_like(like, dtype=torch.float32), torch.empty_like(like, dtype=torch.float32)
    kept: Tensor | None = getattr(_THREAD, "kept", None)
    if kept is None or kept.shape[1] < like.numel():
        kept = _THREAD.kept = torch.empty((2, max(BLOCK, like.numel())), dtype=torch.float32)
    values, size = (part[: like.numel()].view(like.shape) for part in kept)
    return values, size


def sample_magnitudes(states: Tensor) -> Tensor:
    """|x| of (batch, token, channel), at most `MEDIAN_SAMPLE` elements of each row: (batch, element).

    They lie at a fixed stride over tokens and channels. It is odd, so that it does not hit the same channels repeatedly.
    """
    flat = states.flatten(1)
    stride = -(-flat.shape[1] // MEDIAN_SAMPLE) | 1
    return (flat if stride == 1 else flat[:, ::stride]).abs()


def median(magnitudes: Tensor) -> Tensor:
    """Median over the last axis; of an even number the lower of the middle two."""
    if magnitudes.device.type != "cpu":
        return magnitudes.median(dim=-1).values
    middle = (magnitudes.shape[-1] - 1) // 2  # numpy's, which starts no threads beside those of the model
    return torch.from_numpy(np.partition(magnitudes.numpy(), middle, axis=-1)[..., middle].copy())


@one_thread
def row_sums(states: Tensor) -> Tensor:
    """One sum per row: it is not finite if an element is not."""
    return states.flatten(1).sum(dim=1, dtype=torch.float32)


def _tokens(states: Tensor) -> int:
    """Tokens of a block: all where there is no cache to stay in."""
    return max(1, BLOCK // (states.shape[0] * states.shape[2])) if states.device.type == "cpu" else max(1, states.shape[1])


def _wide(states: Tensor) -> torch.dtype:
    return torch.float64 if states.device.type != "mps" else torch.float32


@functools.cache
def fused_on(device: torch.device) -> Callable[[Tensor], Tensor] | None:
    """The kernel, where Triton is installed and can build it: CUDA builds of torch bring Triton, but not its C compiler."""
    try:
        from interp.tracing import kernel
    except ImportError:
        return None
    try:
        kernel.token_statistics(torch.zeros((1, 2, 2), device=device))
    except torch.OutOfMemoryError:  # of the batch, which is halved
        raise
    except Exception as error:  # a compiler's, of any type
        warnings.warn(
            f"Triton cannot build its kernel here ({type(error).__name__}: {str(error)[:200]}); torch reduces the states, "
            "which reads them nine times: install a C compiler, such as gcc",
            InterpWarning,
            stacklevel=2,
        )
        return None
    return kernel.token_statistics
