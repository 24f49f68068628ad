"""The Inception network of FID and Inception Score: TensorFlow's of 2015-12-05, in plain torch.

Its tensors have the names of torchvision's inception_v3, as in pytorch-fid, but the network differs: 1008 classes, average
pooling that excludes padding, max pooling in the last block, pictures resized as in TensorFlow 1 and scaled by (x - 128) / 128.
Torchvision's Inception gives other numbers, which are not FID.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from interp.metrics import preprocess
from interp.metrics.checkpoints import Weights, fill, tensors_of
from interp.metrics.set_distances import inception_score
from interp.metrics.towers import device_of, dtype_of
from interp.store.schema import Array

SIZE, FEATURES, CLASSES = 299, 2048, 1008
SPLIT = 5000
"""Pictures per Inception Score; more pictures give the mean over parts of this size (Dhariwal and Nichol 2021, code)."""

TABLE = Path(__file__).parent / "inception.csv"
"""Every convolution in order: its block, its name in the block, channels in and out, kernel, stride and padding."""
POOLED = ("Conv2d_3b_1x1", "Mixed_5b")
"""Layers after 3 x 3 max pooling of stride 2."""


class Convolution(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, width: int, out: int, kernel: tuple[int, int], stride: int, padding: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, value: Tensor) -> Tensor:
        """(picture, channel, y, x)."""
        return functional.relu(self.bn(self.conv(value)))


class Mixed(nn.ModuleDict):
    """A block of parallel chains, joined by channel: CHAIN_1, CHAIN_2, ... in order. A chain that ends in `a` and `b` ends in
    both, side by side. `branch_pool` follows the pooling; a block without one makes the picture smaller.
    """

    def __init__(self, layers: Mapping[str, nn.Module], largest: bool) -> None:
        super().__init__(layers)
        self.largest = largest
        """Whether pooling takes the maximum, not the mean."""

    def forward(self, value: Tensor) -> Tensor:
        """(picture, channel, y, x)."""
        pooled, ends, sides = self._pooled(value), dict[str, Tensor](), dict[str, Tensor]()
        for name, layer in self.items():
            chain = name.partition("_")[0]
            found = layer(pooled if name == "branch_pool" else ends.get(chain, value))
            if name.endswith("a"):
                sides[chain] = found
            else:
                ends[chain] = torch.cat([sides[chain], found], dim=1) if chain in sides else found
        return torch.cat([*ends.values(), *([] if "branch_pool" in self else [pooled])], dim=1)

    def _pooled(self, value: Tensor) -> Tensor:
        if "branch_pool" not in self:
            return functional.max_pool2d(value, 3, stride=2)
        if self.largest:
            return functional.max_pool2d(value, 3, stride=1, padding=1)
        return functional.avg_pool2d(value, 3, stride=1, padding=1, count_include_pad=False)


def network() -> nn.ModuleDict:
    """Every layer in order, under torchvision's names; pooling is in `Inception.features` and `Mixed`."""
    blocks: dict[str, dict[str, nn.Module]] = {}
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            block, branch = row.pop("block"), row.pop("branch")
            width, out, high, wide, stride, above, left = (int(number) for number in row.values())
            blocks.setdefault(block, {})[branch] = Convolution(width, out, (high, wide), stride, (above, left))
    found = {name: layers.get("") or Mixed(layers, largest=name == "Mixed_7c") for name, layers in blocks.items()}
    return nn.ModuleDict({**found, "fc": nn.Linear(FEATURES, CLASSES)})


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
        for name, layer in list(self.net.items())[:-1]:
            value = layer(functional.max_pool2d(value, 3, stride=2) if name in POOLED else value)
        return np.asarray(value.float().mean(dim=(2, 3)).double().cpu().numpy())

    def score(self, features: Array) -> float:
        """Inception Score of a set (Salimans et al. 2016); the last layer's bias is left out, as in the original code."""
        logits = features @ self.classes.T.astype(np.float64)
        probability = np.exp(logits - logits.max(axis=1, keepdims=True))
        probability /= probability.sum(axis=1, keepdims=True)
        parts = [probability[start : start + SPLIT] for start in range(0, len(probability), SPLIT)]
        return float(np.mean([inception_score(part) for part in parts if len(part) > 1 or len(parts) == 1]))
