"""LPIPS (Zhang et al. 2018): distance of two pictures in features of AlexNet or VGG16, weighted to match human judgements.

The networks' weights are torchvision's files. The heads are in torchmetrics' wheel (BSD 2-clause, Zhang et al.'s version 0.1).
Neither torchvision nor torchmetrics' own LPIPS, which needs it, is imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from interp.base.errors import InputError
from interp.metrics import preprocess
from interp.metrics.checkpoints import SOURCES, Weights, fill, tensors_of
from interp.metrics.towers import device_of, numbers
from interp.store.schema import Array

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation, for pictures in -1..1."""
TINY = 1e-10
VGG = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
LAYERS = {
    "alexnet": ((64, 11, 4, 2), (0, 3, 2, 0), (192, 5, 1, 2), (0, 3, 2, 0), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)),
    "vgg16": tuple((out, 3, 1, 1) if out else (0, 2, 2, 0) for out in VGG),
}
"""Channels, kernel, stride and padding of convolutions; 0 channels are max pooling."""
TAPS = {"alexnet": (1, 4, 7, 9, 11), "vgg16": (3, 8, 15, 22, 29)}
"""The ReLUs that are compared, by their number in torchvision's `features`."""
HEADS = {"alexnet": "alex.pth", "vgg16": "vgg.pth"}


def backbone(name: str) -> nn.Sequential:
    """Torchvision's `features`, up to the last layer that LPIPS uses."""
    layers: list[nn.Module] = []
    before = 3
    for out, kernel, stride, padding in LAYERS[name]:
        layers += [nn.Conv2d(before, out, kernel, stride, padding), nn.ReLU()] if out else [nn.MaxPool2d(kernel, stride)]
        before = out or before
    return nn.Sequential(*layers)


class Lpips:
    """Compares pictures. `weights` are those of `alexnet` (the authors' choice for comparing) or `vgg16`."""

    def __init__(self, weights: Weights, *, device: str = "cpu", heads: str | Path | None = None) -> None:
        if weights.name not in TAPS:
            raise InputError(f"LPIPS needs the weights of {' or '.join(TAPS)}; got {weights.name!r}")
        self.weights, self.device, self.taps = weights, device_of(device), TAPS[weights.name]
        net = backbone(weights.name)
        fill(nn.ModuleDict({"features": net}), tensors_of(weights), weights)
        self.net = net.to(self.device).eval()
        path = Path(heads) if heads is not None else heads_of(weights.name)
        given = tensors_of(Weights(weights.name, path, "", False, path.name))
        self.heads = [self._head(given, number, path) for number in range(len(self.taps))]

    def __call__(self, images: Array, others: Array) -> Array:
        """LPIPS of each pair of equally large pictures, 0 where they are the same: (picture)."""
        one, other = preprocess.as_bytes(images), preprocess.as_bytes(others)
        if one.shape != other.shape:
            raise InputError(f"lpips needs pictures of equal number and size; got {one.shape} and {other.shape}")
        fewest = 32 if self.weights.name == "alexnet" else 16
        if min(one.shape[1:3]) < fewest:
            raise InputError(f"lpips needs pictures of at least {fewest} pixels a side; got {one.shape[2]} x {one.shape[1]}")
        return np.concatenate([self._pair(one[k : k + 1], other[k : k + 1]) for k in range(len(one))] or [np.zeros(0)])

    @torch.inference_mode()
    def _pair(self, one: Array, other: Array) -> Array:
        total = torch.zeros(len(one), dtype=torch.float64)
        for first, second, head in zip(self._looked(one), self._looked(other), self.heads, strict=True):
            total += ((first - second) ** 2 * head).sum(dim=1).mean(dim=(1, 2)).double().cpu()
        return numbers(total)

    def _looked(self, images: Array) -> list[Tensor]:
        """Unit vectors over channels at every tap."""
        shift, scale = (torch.tensor(values)[:, None, None] for values in (SHIFT, SCALE))
        value = torch.from_numpy(np.array(images.transpose(0, 3, 1, 2))).float() / 127.5 - 1
        value = ((value - shift) / scale).to(self.device)
        found = []
        for number, layer in enumerate(self.net):
            value = layer(value)
            if number in self.taps:
                found.append(value / (value.square().sum(dim=1, keepdim=True).sqrt() + TINY))
        return found

    def _head(self, given: dict[str, Tensor], number: int, path: Path) -> Tensor:
        """A 1 x 1 convolution without bias: one weight a channel."""
        name, width = f"lin{number}.model.1.weight", self.net[self.taps[number] - 1].out_channels
        if name not in given or given[name].shape != (1, width, 1, 1):
            raise InputError(f"lpips heads {path} must hold {name}, (1, {width}, 1, 1); give those of {self.weights.name}")
        return given[name].float().to(self.device)


def heads_of(name: str) -> Path:
    """The heads in torchmetrics' wheel."""
    found = importlib.util.find_spec("torchmetrics")
    places = list(found.submodule_search_locations or ()) if found else []
    for place in places:
        path = Path(place) / "functional" / "image" / "lpips_models" / HEADS[name]
        if path.exists():
            return path
    raise InputError(f"lpips needs its heads for {SOURCES[name].what}, which are in torchmetrics: pip install 'interp[eval]'")
