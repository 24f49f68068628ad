"""Preprocess pictures as the metrics' networks were trained. PIL and torch, no torchvision.

Pictures are (picture, y, x, rgb), uint8 or floats in 0..1; the result is a float32 tensor (picture, rgb, y, x).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from interp.base.errors import InputError
from interp.metrics.distances import as_floats, check_shape
from interp.store.schema import Array

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's training pictures; BLIP and HPSv2 use them too (Radford et al. 2021, code)."""


def as_bytes(images: Array) -> Array:
    """Round pictures to (picture, y, x, rgb) uint8; anything else, NaN included, is an error."""
    images = np.asarray(images)
    if images.ndim != 4:
        raise InputError(f"pictures must be (picture, y, x, rgb); got shape {images.shape}")
    if images.dtype == np.uint8:
        return check_shape(images)
    return np.asarray(np.round(as_floats(images) * 255), np.uint8)


def centre_square(images: Array, size: int) -> Tensor:
    """Resize the shorter side to `size`, bicubic and antialiased on bytes (PIL), and crop the centre square: 0..1."""
    images = as_bytes(images)
    height, width = images.shape[1:3]
    short = min(height, width)
    high, wide = (size if side == short else int(size * side / short) for side in (height, width))
    resized = _pil(images, high, wide)
    top, left = (high - size) // 2, (wide - size) // 2
    return _tensor(resized[:, top : top + size, left : left + size]) / 255


def square(images: Array, size: int) -> Tensor:
    """Resize both sides to `size`, ignoring proportions, bicubic and antialiased on bytes (PIL): 0..1."""
    return _tensor(_pil(as_bytes(images), size, size)) / 255


def letterbox(images: Array, size: int) -> Tensor:
    """Resize the longer side to `size`, bicubic and antialiased on floats (torch), padded with black: about 0..1."""
    tensor = _tensor(as_bytes(images)) / 255
    height, width = tensor.shape[-2:]
    scale = size / max(height, width)
    high, wide = round(height * scale), round(width * scale)
    if (high, wide) != (height, width):
        tensor = functional.interpolate(tensor, (high, wide), mode="bicubic", align_corners=False, antialias=True)
    above, left = (size - high) // 2, (size - wide) // 2
    return functional.pad(tensor, (left, size - wide - left, above, size - high - above))


def clip_colours(pictures: Tensor) -> Tensor:
    """Normalise 0..1 to CLIP's mean and deviation."""
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_DEVIATION))
    return (pictures - mean) / deviation


def like_tensorflow_1(images: Array, size: int) -> Tensor:
    """Resize bilinearly as in TensorFlow 1, pixel i from i * old / new, neither centred nor antialiased: 0..255."""
    tensor = _tensor(as_bytes(images))
    for axis in (-2, -1):
        old = tensor.shape[axis]
        place = torch.arange(size, dtype=torch.float32) * (old / size)
        low = place.floor().long().clamp(max=old - 1)
        share = (place - low).reshape((-1, 1) if axis == -2 else (-1,))
        first, second = tensor.index_select(axis, low), tensor.index_select(axis, (low + 1).clamp(max=old - 1))
        tensor = first + (second - first) * share
    return tensor


def paired(images: Array, prompts: Sequence[str]) -> None:
    """Raise an error unless there is one prompt per picture."""
    if len(images) != len(prompts):
        raise InputError(f"prompts must be one per picture; got {len(prompts)} for {len(images)} pictures")


def _pil(images: Array, height: int, width: int) -> Array:
    found = [Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC) for image in images]
    return np.stack([np.asarray(image) for image in found])


def _tensor(images: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float()
