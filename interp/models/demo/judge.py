"""The demo judge: a small classifier of the attributes of demo-world pictures.

Semantics are shape, colour, size, position and background; texture is the local detail that a prompt can name. The judge's
accuracy, also under blur, noise and the VAE, is in docs/judge.md (`interp demo train-judge` makes both).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from interp.base.errors import InputError
from interp.models.demo.world import ATTRIBUTES, SIZE
from interp.store.schema import Array

SEMANTIC = ("shape", "colour", "size", "position", "background")
FEATURES = 64
WIDTHS = (24, 48, 72, 96)
WEIGHTS = Path(__file__).parent / "judge.safetensors"


class Net(nn.Module):
    """Four convolutions that halve the picture, a hidden layer that gives the judge's features, one head per attribute."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in WIDTHS:
            layers += [nn.Conv2d(before, width, 5 if before == 3 else 3, 2, 2 if before == 3 else 1), nn.GroupNorm(4, width)]
            layers += [nn.SiLU(), nn.Conv2d(width, width, 3, 1, 1), nn.GroupNorm(4, width), nn.SiLU()]
            before = width
        self.body = nn.Sequential(*layers)
        self.neck = nn.Sequential(nn.Flatten(), nn.Linear(before * (SIZE // 2 ** len(WIDTHS)) ** 2, FEATURES), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, len(values)) for name, values in ATTRIBUTES.items()})

    def forward(self, pictures: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(picture, rgb, y, x) in -1..1 -> features (picture, feature) and logits (picture, value) of every attribute."""
        features = self.neck(self.body(pictures))
        return features, {name: head(features) for name, head in self.heads.items()}


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """The judge's predictions for pictures."""

    probability: Mapping[str, Array]
    """Per attribute, (picture, value), values in the order of `world.ATTRIBUTES`."""
    features: Array
    """(picture, feature)."""

    def values(self, attribute: str) -> list[str]:
        """The most probable value for every picture."""
        return [ATTRIBUTES[attribute][place] for place in self.probability[attribute].argmax(axis=1)]

    def right(self, attribute: str, asked: Sequence[str | None]) -> Array:
        """Whether each picture shows the requested value, (picture) 0 or 1; NaN where there is none."""
        said = self.values(attribute)
        return np.array([np.nan if want is None else float(got == want) for got, want in zip(said, asked, strict=True)])


class Judge:
    """A trained judge."""

    def __init__(self, net: Net) -> None:
        self.net = net.eval()

    @torch.no_grad()
    def __call__(self, pictures: Array, batch: int = 100) -> Verdicts:
        """Judge pictures, (picture, y, x, rgb) uint8 of 64 x 64 pixels."""
        pictures = np.asarray(pictures)
        if pictures.ndim != 4 or pictures.shape[1:] != (SIZE, SIZE, 3) or pictures.dtype != np.uint8:
            raise InputError(
                f"the demo judge needs uint8 pictures of {SIZE} x {SIZE} pixels, (picture, y, x, rgb); got "
                f"{pictures.dtype} {pictures.shape}; use it for the demo world only"
            )
        features, logits = [], []
        for start in range(0, len(pictures), batch):
            found = self.net(as_input(pictures[start : start + batch]))
            features.append(found[0].numpy())
            logits.append({name: values.softmax(-1).numpy() for name, values in found[1].items()})
        return Verdicts(
            {name: np.concatenate([part[name] for part in logits]) for name in ATTRIBUTES}, np.concatenate(features)
        )

    @torch.no_grad()
    def shapes(self, features: Array) -> Array:
        """Probability of every shape, (picture, shape), from the judge's features, (picture, feature)."""
        logits: Tensor = self.net.heads["shape"](torch.from_numpy(np.asarray(features, np.float32)))
        return logits.softmax(-1).numpy()

    def save(self, path: Path) -> None:
        """Write the weights, half precision."""
        save_file({name: tensor.half() for name, tensor in self.net.state_dict().items()}, path)


def as_input(pictures: Array) -> Tensor:
    """(picture, y, x, rgb) uint8 as the net takes them."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


@functools.lru_cache(maxsize=4)
def load_judge(path: Path = WEIGHTS) -> Judge:
    """The shipped judge, or one that `interp demo train-judge` made."""
    if not path.is_file():
        raise InputError(f"judge: {path} does not exist; make one with interp demo train-judge --out FOLDER")
    net = Net()
    net.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    return Judge(net)


def asked_for(prompt: str) -> dict[str, str | None]:
    """The attributes that a caption of the demo world names; `None` for those it omits."""
    words = f" {' '.join(prompt.lower().split())} "
    found: dict[str, str | None] = {}
    for name, values in ATTRIBUTES.items():
        where = {"background": " on a {} background ", "position": " in the {} "}.get(name, " {} ")
        named = [value for value in values if where.format(value) in words]
        found[name] = max(named, key=len) if named else None
    return found
