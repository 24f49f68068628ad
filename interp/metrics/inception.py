"""The Inception network of FID and Inception Score: TensorFlow's of 2015-12-05, in plain torch.

Its tensors have the names of torchvision's inception_v3, as in pytorch-fid, but the network differs: 1008 classes, average
pooling that excludes padding, max pooling in the last block, pictures resized as in TensorFlow 1 and scaled by (x - 128) / 128.
Torchvision's Inception gives other numbers, which are not FID.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from interp.metrics import preprocess
from interp.metrics.checkpoints import Weights
from interp.metrics.preprocess import Array
from interp.metrics.set_distances import inception_score
from interp.metrics.tensors import fill, tensors_of
from interp.metrics.towers import device_of, dtype_of

SIZE, FEATURES, CLASSES = 299, 2048, 1008
SPLIT = 5000
"""Pictures per Inception Score; more pictures give the mean over parts of this size (Dhariwal and Nichol 2021, code)."""

Step = tuple[str, int, Any, int]
"""Name, channels out, kernel, stride; padding keeps the size where the stride is 1."""
Chain = tuple[Step, ...]
WIDE, HIGH = (1, 7), (7, 1)


class Convolution(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, width: int, out: int, kernel: Any, stride: int = 1, padding: Any = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, value: Tensor) -> Tensor:
        """(picture, channel, y, x)."""
        return functional.relu(self.bn(self.conv(value)))


class Mixed(nn.Module):
    """A block of parallel chains, joined by channel. A chain that ends in `a` and `b` ends in both, side by side."""

    def __init__(self, width: int, chains: tuple[Chain, ...], pool: str, pooled: int = 0) -> None:
        super().__init__()
        self.pool, self.chains = pool, [[name for name, *_ in chain] for chain in chains]
        for chain in chains:
            before = width
            for name, out, kernel, stride in chain:
                sides = (kernel, kernel) if isinstance(kernel, int) else kernel
                padding = tuple(side // 2 if stride == 1 else 0 for side in sides)
                self.add_module(name, Convolution(before, out, kernel, stride, padding))
                before = before if name.endswith("a") else out
        if pooled:
            self.branch_pool = Convolution(width, pooled, 1)
        self.out = sum(_out(chain) for chain in chains) + (pooled or width)

    def forward(self, value: Tensor) -> Tensor:
        """(picture, channel, y, x)."""
        return torch.cat([*(self._run(names, value) for names in self.chains), self._pooled(value)], dim=1)

    def _run(self, names: list[str], value: Tensor) -> Tensor:
        both = names[-1].endswith("b")
        for name in names[:-2] if both else names:
            value = self.get_submodule(name)(value)
        return torch.cat([self.get_submodule(name)(value) for name in names[-2:]], dim=1) if both else value

    def _pooled(self, value: Tensor) -> Tensor:
        if self.pool == "shrink":
            return functional.max_pool2d(value, 3, stride=2)
        if self.pool == "average":
            found = functional.avg_pool2d(value, 3, stride=1, padding=1, count_include_pad=False)
        else:
            found = functional.max_pool2d(value, 3, stride=1, padding=1)
        pooled: Tensor = self.branch_pool(found)
        return pooled


def _out(chain: Chain) -> int:
    return sum(out for name, out, *_ in chain[-2:]) if chain[-1][0].endswith("b") else chain[-1][1]


def _chain(name: str, *steps: tuple[int, Any, int]) -> Chain:
    return tuple((f"{name}_{number}", *step) for number, step in enumerate(steps, 1))


def block_a(width: int, pooled: int) -> Mixed:
    """35 x 35: 1 x 1, 5 x 5, two 3 x 3."""
    chains = (
        (("branch1x1", 64, 1, 1),),
        _chain("branch5x5", (48, 1, 1), (64, 5, 1)),
        _chain("branch3x3dbl", (64, 1, 1), (96, 3, 1), (96, 3, 1)),
    )
    return Mixed(width, chains, "average", pooled)


def block_b(width: int) -> Mixed:
    """To 17 x 17."""
    chains: tuple[Chain, ...] = (
        (("branch3x3", 384, 3, 2),),
        _chain("branch3x3dbl", (64, 1, 1), (96, 3, 1), (96, 3, 2)),
    )
    return Mixed(width, chains, "shrink")


def block_c(width: int, inner: int) -> Mixed:
    """17 x 17: 7 x 7 in rows and columns."""
    steps = ((inner, 1, 1), (inner, HIGH, 1), (inner, WIDE, 1), (inner, HIGH, 1), (192, WIDE, 1))
    chains = (
        (("branch1x1", 192, 1, 1),),
        _chain("branch7x7", (inner, 1, 1), (inner, WIDE, 1), (192, HIGH, 1)),
        _chain("branch7x7dbl", *steps),
    )
    return Mixed(width, chains, "average", 192)


def block_d(width: int) -> Mixed:
    """To 8 x 8."""
    chains = (
        _chain("branch3x3", (192, 1, 1), (320, 3, 2)),
        _chain("branch7x7x3", (192, 1, 1), (192, WIDE, 1), (192, HIGH, 1), (192, 3, 2)),
    )
    return Mixed(width, chains, "shrink")


def block_e(width: int, pool: str) -> Mixed:
    """8 x 8, chains that end in a row and a column."""
    chains: tuple[Chain, ...] = (
        (("branch1x1", 320, 1, 1),),
        (("branch3x3_1", 384, 1, 1), ("branch3x3_2a", 384, (1, 3), 1), ("branch3x3_2b", 384, (3, 1), 1)),
        (
            *_chain("branch3x3dbl", (448, 1, 1), (384, 3, 1)),
            ("branch3x3dbl_3a", 384, (1, 3), 1),
            ("branch3x3dbl_3b", 384, (3, 1), 1),
        ),
    )
    return Mixed(width, chains, pool, 192)


def network() -> nn.ModuleDict:
    """Every module in order, under torchvision's names; `pool` is 3 x 3 max pooling of stride 2."""
    blocks: dict[str, nn.Module] = {
        "Conv2d_1a_3x3": Convolution(3, 32, 3, 2),
        "Conv2d_2a_3x3": Convolution(32, 32, 3),
        "Conv2d_2b_3x3": Convolution(32, 64, 3, padding=1),
        "pool1": nn.MaxPool2d(3, 2),
        "Conv2d_3b_1x1": Convolution(64, 80, 1),
        "Conv2d_4a_3x3": Convolution(80, 192, 3),
        "pool2": nn.MaxPool2d(3, 2),
        "Mixed_5b": block_a(192, 32),
        "Mixed_5c": block_a(256, 64),
        "Mixed_5d": block_a(288, 64),
        "Mixed_6a": block_b(288),
        "Mixed_6b": block_c(768, 128),
        "Mixed_6c": block_c(768, 160),
        "Mixed_6d": block_c(768, 160),
        "Mixed_6e": block_c(768, 192),
        "Mixed_7a": block_d(768),
        "Mixed_7b": block_e(1280, "average"),
        "Mixed_7c": block_e(2048, "maximum"),
        "fc": nn.Linear(FEATURES, CLASSES),
    }
    return nn.ModuleDict(blocks)


class Inception:
    """Computes features and scores of pictures."""

    def __init__(self, weights: Weights, *, device: str = "cpu", dtype: str = "float32") -> None:
        self.weights, self.device, self.dtype = weights, device_of(device), dtype_of(dtype)
        with torch.device("meta"):
            net = network()
        self.net: nn.ModuleDict = net.to_empty(device="cpu")
        fill(self.net, tensors_of(weights), weights)
        self.net.to(self.device, self.dtype).eval()
        self.classes = self.net.state_dict()["fc.weight"].float().cpu().numpy()

    @torch.inference_mode()
    def features(self, images: Array) -> Array:
        """Spatial means of the last block, (picture, 2048), for FID, precision and recall."""
        value = (preprocess.like_tensorflow_1(images, SIZE) - 128) / 128
        value = value.to(self.device, self.dtype)
        for name, layer in self.net.items():
            if name != "fc":
                value = layer(value)
        return np.asarray(value.float().mean(dim=(2, 3)).double().cpu().numpy())

    def score(self, features: Array) -> float:
        """Inception Score of a set (Salimans et al. 2016); the last layer's bias is left out, as in the original code."""
        logits = features @ self.classes.T.astype(np.float64)
        probability = np.exp(logits - logits.max(axis=1, keepdims=True))
        probability /= probability.sum(axis=1, keepdims=True)
        parts = [probability[start : start + SPLIT] for start in range(0, len(probability), SPLIT)]
        return float(np.mean([inception_score(part) for part in parts if len(part) > 1 or len(parts) == 1]))
